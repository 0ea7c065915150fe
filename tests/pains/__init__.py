"""What users of other clouds suffer, by its number in the list of pains: tests that such a cloud would fail."""
