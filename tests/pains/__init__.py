"""What users of other clouds suffer, by its number in the list of pains: tests that such a cloud would fail.

Others are proved where they belong: why no host was valid, and what would help (4), tests/placement/test_remedy.py;
a thousand at once against a limit (8), tests/compute/test_quota.py; thousands at once for a few places (15),
tests/compute/test_crowd.py; processes that are killed or told to end (17), tests/faults; and every step of every action
failed, repeated and broken off (1, 2, 7, 16), tests/saga.
"""
