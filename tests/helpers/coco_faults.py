"""Faults of COCO files and detectors, and the findings that report them."""


from .spoiled_data import HALF_A_JPEG, JPEG_WITHOUT_END, Fault, count


def _set(**values):
    """Return a function that plants values in an annotation."""
    return lambda data: data.change_entry(
        lambda entry, image: entry.update(values))


def _box(make, area=100):
    return lambda data: data.change_entry(lambda entry, image: entry.update(
        bbox=make(image['width'], image['height']), area=area))


def _corners(data):
    def change(content):
        for entry in content['annotations']:
            x, y, w, h = entry['bbox']
            entry['bbox'] = [x, y, x + w, y + h]
        return 'annotation'

    return data.change(change)


def _polygon(make):
    return lambda data: data.change_entry(lambda entry, image: entry.update(
        segmentation=make(image['width'], image['height'])))


def _misspell(data):
    classes = data.train.metainfo.classes
    data.train.metainfo.classes = ('sqare', *classes[1:])
    return 'sqare'


def _reorder(data):
    data.train.metainfo.classes = tuple(reversed(data.train.metainfo.classes))
    return data.train.metainfo.classes[-1]


def _leave_out_count(data):
    # The default is 80.
    data.cfg.model.roi_head.mask_head.pop('num_classes')
    return 'roi_head.mask_head'


def _remove_image(data):
    path = data.image()
    path.unlink()
    return path.name


def _image_size(data):
    def change(content):
        name = data.image().name
        image, = (one for one in content['images']
                  if one['file_name'] == name)
        # This is wrong for a square image too.
        image['width'] += 7
        return name

    # Run-length masks would not fit the new size either.
    def drop(content):
        entries = content['annotations']
        content['annotations'] = [
            one for one in entries if isinstance(one['segmentation'], list)
        ] or entries

    data.change(drop)
    return data.change(change)


def _repeat(key, field, found=None):
    """Copy a value of an entry from the entry before it."""
    def change(content):
        entries = content[key]
        entries[-1][field] = entries[-2][field]
        return found or str(entries[-1][field])

    return lambda data: data.change(change)


def _repeat_category(field):
    def change(content):
        content['categories'].append(dict(content['categories'][0]))
        content['categories'][-1][
            'id' if field == 'name' else 'name'] = 77
        return str(content['categories'][0][field])

    return lambda data: data.change(change)


def _empty_most(data):
    def change(content):
        entry = data.entry(content)
        content['annotations'] = [entry]
        return next(one['file_name'] for one in content['images']
                    if one['id'] != entry['image_id'])

    return data.change(change)


def _empty_all(data):
    data.change(lambda content: content['annotations'].clear())
    return ''


def _small(data):
    def change(content):
        image = next(one for one in content['images']
                     if one['file_name'] == data.image().name)
        data.train.filter_cfg.min_size = min(image['width'],
                                             image['height']) + 1
        return image['file_name']

    return data.change(change)


def _lose_class(data):
    name = data.train.metainfo.classes[0]

    def change(content):
        lost, = (one['id'] for one in content['categories']
                 if one['name'] == name)
        content['annotations'] = [one for one in content['annotations']
                                  if one['category_id'] != lost]

    data.change(change)
    return name


def _drop_category(data):
    first, *others = data.train.metainfo.classes
    for dataset in (data.train, data.cfg.val_dataloader.dataset):
        dataset.metainfo.classes = tuple(others)
    for head in (data.cfg.model.roi_head.bbox_head,
                 data.cfg.model.roi_head.mask_head):
        head.num_classes -= 1
    return first


def _text(data):
    path = data.folder / 'annotations' / 'instances_train.json'
    path.write_bytes(path.read_bytes()[:-1000])
    return path.name


COCO = {
    'class name': Fault(_misspell, 'class name without category'),
    'class order': Fault(_reorder, 'order of classes', needs=2),
    'class left out': Fault(
        _drop_category, 'category that is not a class', False, needs=2),
    'count of box head': Fault(
        count('roi_head.bbox_head'), 'class count of a head'),
    'count of mask head': Fault(
        count('roi_head.mask_head'), 'class count of a head'),
    'count by default': Fault(_leave_out_count, 'class count of a head'),
    'truncated json': Fault(_text, 'not a COCO file'),
    'missing image': Fault(_remove_image, 'missing image'),
    'half a jpeg': HALF_A_JPEG,
    'jpeg without end': JPEG_WITHOUT_END,
    'size in json': Fault(_image_size, 'image of another size'),
    'no bbox': Fault(_set(bbox=None), 'malformed annotation'),
    'corners as boxes': Fault(_corners, 'box partly outside'),
    'box outside': Fault(
        _box(lambda w, h: [w + 5, 10, 10, 10]), 'box that mm drops', False),
    'box partly outside': Fault(
        _box(lambda w, h: [w - 20, 10, 40, 10]), 'box partly outside',
        False),
    'no mask': Fault(_polygon(lambda w, h: []), 'missing mask'),
    'polygon of two points': Fault(
        _polygon(lambda w, h: [[1, 1, 9, 9]]), 'malformed mask', False),
    'polygon outside': Fault(
        _polygon(lambda w, h: [[w + 1, 1, w + 9, 1, w + 9, 9]]),
        'mask outside', False),
    'polygon of points': Fault(
        _polygon(lambda w, h: [[[x, x] for x in range(6)]]),
        'unreadable mask'),
    'rle of another size': Fault(
        _polygon(lambda w, h: dict(size=[1, h * w], counts=[h * w])),
        'mask of another size'),
    'no such image id': Fault(
        _set(image_id=987654), 'annotation without image', False),
    'no such category': Fault(
        _set(category_id=987), 'unknown category id', False),
    'image id twice': Fault(
        _repeat('images', 'id'), 'duplicate image id'),
    'file name twice': Fault(
        _repeat('images', 'file_name'), 'duplicate file name', False),
    'annotation id twice': Fault(
        _repeat('annotations', 'id', 'not unique'),
        'data set that cannot be built'),
    'category name twice': Fault(
        _repeat_category('name'), 'duplicate category name'),
    'category id twice': Fault(
        _repeat_category('id'), 'duplicate category id'),
    'most images empty': Fault(
        _empty_most, 'images without ground truth', False),
    'all images empty': Fault(_empty_all, 'images without ground truth'),
    'small image': Fault(_small, 'small images', False),
    'class without box': Fault(
        _lose_class, 'class without example', False, needs=2),
}
