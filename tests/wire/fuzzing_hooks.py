"""What schemathesis must be told: Glance's JSON patches are JSON under another name."""

import schemathesis

for version in ("2.0", "2.1"):
    schemathesis.serializer.alias(f"application/openstack-images-v{version}-json-patch", "application/json")
