"""What only the comparison with PyTorch imports is not collected: torch is optional."""

collect_ignore = ["torch_side.py"]
