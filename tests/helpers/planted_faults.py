"""All faults that tests plant in data."""

from .coco_faults import COCO
from .label_map_faults import LABEL_MAPS

_BY_MODEL = dict(mask_rcnn=COCO, upernet=LABEL_MAPS)
FAULTS = [(model, name) for model, faults in _BY_MODEL.items()
          for name in faults]


def fault(model, name):
    """Return the fault of this name for 'mask_rcnn' or 'upernet'."""
    return _BY_MODEL[model][name]
