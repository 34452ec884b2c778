"""What pytest is not to import: it needs torchvision and timm."""

collect_ignore = ["make_torch_references.py"]
