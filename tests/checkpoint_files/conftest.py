import pytest
import torch


@pytest.fixture
def state():
    """Tensors of the ranks and types that matter."""
    return {
        'square.weight': torch.randn(3, 3),
        'oblong.weight': torch.randn(2, 5),
        'point.weight': torch.randn(2, 2, 1, 1),
        'bias': torch.randn(3),
        'half': torch.randn(4).half(),
        'bf16.weight': torch.randn(2, 4).bfloat16(),
        'offset': torch.zeros(1, 6, 1, 1),
    }
