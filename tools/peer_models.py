"""The backbones as PyTorch has them: torchvision's, and timm's Xception or, where timm is missing, a plain one of the paper."""

import torch
import torchvision
from torch import nn

SIDES = {"inception_v3": 299, "xception": 299, "efficientnet_b2": 260, "efficientnet_b3": 300}
NAMES = ["vgg16", "resnet50", "inception_v3", "mobilenet_v2", "xception", "efficientnet_b0", "efficientnet_b2", "efficientnet_b3", "densenet121"]


def network(name):
    """Six outputs, random weights: the same each time."""
    torch.manual_seed(0)
    if name == "xception":
        return xception()
    if name == "inception_v3":
        return torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=6)
    if name == "vgg16":
        model = torchvision.models.vgg16(weights=None)
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Linear(512, 6)
        return model
    return getattr(torchvision.models, name)(weights=None, num_classes=6)


def xception():
    try:
        import timm
    except ImportError:
        return plain_xception()
    return timm.create_model("legacy_xception", pretrained=False, num_classes=6)


def separable(inputs, outputs):
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


def normed(conv, width):
    return [conv, nn.BatchNorm2d(width)]


class Block(nn.Module):
    """Separable convolutions of these widths with a shortcut, which a stride makes a convolution."""

    def __init__(self, widths, stride, begins_with_relu=True):
        super().__init__()
        layers = []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [nn.ReLU(), *normed(separable(inputs, outputs), outputs)]
        layers = layers if begins_with_relu else layers[1:]
        self.skip = nn.Identity()
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
            self.skip = nn.Sequential(*normed(nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False), widths[-1]))
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x) + self.skip(x)


def plain_xception():
    """Chollet 2016, arXiv 1610.02357, figure 5."""
    entry = [*normed(nn.Conv2d(3, 32, 3, 2, bias=False), 32), nn.ReLU(), *normed(nn.Conv2d(32, 64, 3, bias=False), 64), nn.ReLU()]
    entry += [Block([64, 128, 128], 2, begins_with_relu=False), Block([128, 256, 256], 2), Block([256, 728, 728], 2)]
    middle = [Block([728] * 4, 1) for _ in range(8)]
    tail = [Block([728, 728, 1024], 2), *normed(separable(1024, 1536), 1536), nn.ReLU(), *normed(separable(1536, 2048), 2048), nn.ReLU()]
    return nn.Sequential(*entry, *middle, *tail, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 6))
