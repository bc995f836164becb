"""Load tests: run as modules, `python -m load_tests.packet_loss`."""
