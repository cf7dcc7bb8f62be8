"""The contenders of the benchmark compute what they should."""

import definition
import torch

from mmcyclemlp.benchmark.calls import draw, make_net
from mmcyclemlp.benchmark.contenders import TEXTBOOK, build_net, plain_cycle_fc


def test_definition():
    """What the contenders are held to is the definition of the tests."""
    x = torch.randn(2, 7, 5, 6, dtype=torch.float64)
    weight = torch.randn(4, 7, 1, 1, dtype=torch.float64)
    for kernel in ((1, 3), (3, 1)):
        torch.testing.assert_close(
            plain_cycle_fc(x, weight, None, kernel),
            definition.cycle_fc(x, weight, None, kernel))
    maps = make_net(torch.device('cpu'), 'b1', None, None, 'fp32', False,
                    TEXTBOOK, small=True, exact=True)()
    net = build_net('b1', TEXTBOOK, 'cpu').double()
    image, = draw([(2, 3, 72, 104)], torch.float32, 'cpu', True)
    expected = definition.backbone(net.state_dict(), image, (2, 2, 4, 2))
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b)
