"""Who may do what with images: Glance's rules under their own names."""

from __future__ import annotations

from collections.abc import Mapping

from api.wire.policy import ADMIN, ADMIN_OR_MEMBER, ADMIN_OR_READER, Check, everybody

POLICY: Mapping[str, Check | str] = {
    "get_images": ADMIN_OR_READER,
    "get_image": ADMIN_OR_READER,
    "add_image": ADMIN_OR_MEMBER,
    "modify_image": ADMIN_OR_MEMBER,
    "delete_image": ADMIN_OR_MEMBER,
    "publicize_image": ADMIN,
    "communitize_image": ADMIN_OR_MEMBER,
    "change_image_owner": ADMIN,
    "upload_image": ADMIN_OR_MEMBER,
    "download_image": ADMIN_OR_MEMBER,
    "download_deactivated_image": ADMIN,
    "deactivate": ADMIN_OR_MEMBER,
    "reactivate": ADMIN_OR_MEMBER,
    "get_members": ADMIN_OR_READER,
    "get_member": ADMIN_OR_READER,
    "add_member": ADMIN_OR_MEMBER,
    "delete_member": ADMIN_OR_MEMBER,
    "modify_member": ADMIN_OR_MEMBER,
    "get_image_documents": everybody,
}
"""The target is the image's owner (for `modify_member`, the member); seeing an image is decided before any of them."""
