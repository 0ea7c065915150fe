"""The network driver for Open vSwitch."""
