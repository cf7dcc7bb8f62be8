"""Predictions are mm's own, told and drawn as they are, or refused."""

import cv2
import definition
import numpy as np
import pytest
import torch
from helpers.tiny_configs import MODELS, write_checkpoint, write_config
from mmengine.config import Config

from mmcyclemlp import CycleNet
from mmcyclemlp.apis.predictors import build_predictor
from mmcyclemlp.errors import CheckpointError, UserError

LIBRARIES = dict(retinanet='mmdet', upernet='mmseg')
THINGS = ('disc', 'square', 'triangle', 'star', 'ring')


@pytest.fixture(scope='module')
def model(root, drawn_data, tmp_path_factory):
    """Config and checkpoint of a tiny model, each written once."""
    written = {}

    def give(name):
        pytest.importorskip(LIBRARIES[name])
        if name not in written:
            folder = tmp_path_factory.mktemp(name)
            config = write_config(folder, root, drawn_data, name)
            written[name] = config, str(write_checkpoint(
                config, folder / f'{name}.pth'))
        return written[name]

    return give


def build(config, checkpoint, **options):
    return build_predictor(Config.fromfile(config), checkpoint, 'cpu',
                           **options)


def test_detector(model, drawn_data):
    config, checkpoint = model('retinanet')
    path = str(drawn_data / 'images' / 'val' / '0000.jpg')
    image = cv2.imread(path)
    from mmdet.apis import inference_detector, init_detector
    from mmengine.registry import DefaultScope

    expected = inference_detector(
        init_detector(str(config), checkpoint, device='cpu'), path)
    expected = expected.pred_instances
    assert DefaultScope.get_current_instance().scope_name == 'mmdet'
    # Ten are kept; the threshold cuts them in the middle.
    limit = float(expected.scores[4:6].mean())
    predict = build(config, checkpoint)
    prediction, again = predict([image, image], score_thr=limit)
    instances = prediction.record['instances']
    assert len(instances) == 5 and instances == again.record['instances']
    for instance, box, label, score in zip(
            instances, expected.bboxes, expected.labels, expected.scores):
        assert instance['class'] == THINGS[label]
        assert instance['score'] == pytest.approx(float(score), abs=1e-4)
        assert instance['box'] == pytest.approx(box.tolist(), abs=0.02)
    assert prediction.picture.shape == image.shape
    assert (prediction.picture != image).any()
    nothing, = predict([image], score_thr=1.)
    assert nothing.record == dict(instances=[])
    # Nothing is drawn, and red is still red.
    assert (nothing.picture == image).all()


def test_masks(root, drawn_data, tmp_path):
    pytest.importorskip('mmdet')
    config = root / 'demo' / 'mask_rcnn.py'
    checkpoint = str(write_checkpoint(config, tmp_path / 'mask.pth'))
    path = str(drawn_data / 'images' / 'val' / '0000.jpg')
    image = cv2.imread(path)
    from mmdet.apis import inference_detector, init_detector
    from pycocotools import mask as coco_mask

    expected = inference_detector(
        init_detector(str(config), checkpoint, device='cpu'),
        path).pred_instances
    prediction, = build(config, checkpoint)([image], score_thr=0.)
    instances = prediction.record['instances']
    assert len(instances) == len(expected) > 0
    for instance, mask in zip(instances, expected.masks.numpy()):
        assert (coco_mask.decode(instance['mask']) == mask).all()


def test_segmentor(model, drawn_data):
    config, checkpoint = model('upernet')
    path = str(drawn_data / 'images' / 'val' / '0001.jpg')
    image = cv2.imread(path)
    from mmseg.apis import inference_model, init_model

    expected = inference_model(
        init_model(str(config), checkpoint, device='cpu'), path)
    expected = expected.pred_sem_seg.data[0].numpy()
    prediction, = build(config, checkpoint, opacity=1.)([image])
    assert (prediction.label_map == expected).all()
    fractions = prediction.record['fractions']
    assert sum(fractions.values()) == pytest.approx(1, abs=1e-5)
    names = ('wall', 'floor', *THINGS)
    assert fractions[names[expected[0, 0]]] == pytest.approx(
        (expected == expected[0, 0]).mean(), abs=1e-5)
    # The config's colors, but for the names.
    colors = np.array(Config.fromfile(config).metainfo.palette)[expected]
    same = (prediction.picture[..., ::-1] == colors).all(-1)
    assert 0.5 < same.mean() < 1
    plain, = build(config, checkpoint, opacity=0.)([image])
    assert (plain.picture == image).all(-1)[same].all()


def test_classifier(root, tmp_path):
    pytest.importorskip('mmpretrain')
    config = root / 'configs/imagenet/cyclemlp-b1_8xb128_in1k.py'
    network = CycleNet('b1', fork_feat=False).eval()
    torch.save(definition.official_file(network), tmp_path / 'official.pth')
    image = np.random.RandomState(0).randint(0, 256, (256, 256, 3), np.uint8)
    predict = build(config, str(tmp_path / 'official.pth'))
    prediction, = predict([image])
    # By hand: the middle, in RGB, normalized as in training.
    cfg = Config.fromfile(config).model.data_preprocessor
    x = torch.tensor(image[16:240, 16:240, ::-1].copy()).double()
    x = (x - torch.tensor(cfg.mean)) / torch.tensor(cfg.std)
    with torch.no_grad():
        logits = network(x.float().permute(2, 0, 1)[None])
    scores = logits.softmax(1)[0]
    best = prediction.record['classes']
    assert [one['label'] for one in best] == scores.topk(5)[1].tolist()
    assert [one['score'] for one in best] == pytest.approx(
        scores.topk(5)[0].tolist(), abs=1e-4)
    assert len(predict.classes) == 1000
    assert (prediction.picture != image).any()
    with pytest.raises(UserError, match='1000 classes, and 2 names'):
        build(config, str(tmp_path / 'official.pth'), classes=['a', 'b'])


BINARY = """
head = dict(num_classes={number}, out_channels=1, threshold=0.5, loss_decode=
            dict(type='CrossEntropyLoss', use_sigmoid=True))
model['decode_head'].update(head)
model['auxiliary_head'].update(head)
"""


@pytest.mark.parametrize('number, names, expected', [
    (2, ['rest', 'thing'], ['rest', 'thing']),
    (1, ['rest', 'thing'], ['rest', 'thing']),
    (1, ['thing'], ['background', 'thing']),
])
def test_sigmoid(number, names, expected, model, root, drawn_data, tmp_path):
    pytest.importorskip('mmseg')
    config = write_config(tmp_path, root, drawn_data, 'upernet')
    with config.open('a') as file:
        file.write(BINARY.format(number=number))
    checkpoint = str(write_checkpoint(config, tmp_path / 'binary.pth'))
    from mmseg.apis import inference_model, init_model

    path = str(drawn_data / 'images' / 'val' / '0001.jpg')
    score = inference_model(init_model(str(config), checkpoint, 'cpu'),
                            path).seg_logits.data.logit()
    content = torch.load(checkpoint)
    content['state_dict']['decode_head.conv_seg.bias'] -= score.median()
    torch.save(content, checkpoint)
    truth = inference_model(init_model(str(config), checkpoint, 'cpu'), path)
    predict = build(config, checkpoint, classes=names)
    prediction, = predict([predict.load(path)])
    labels = truth.pred_sem_seg.data[0].numpy()
    assert (prediction.label_map == labels).all()
    assert prediction.label_map.dtype == np.uint8
    assert prediction.record['fractions'] == {
        name: pytest.approx((labels == label).mean(), abs=1e-5)
        for label, name in enumerate(expected)}
    with pytest.raises(UserError, match='2 classes, and there are 3'):
        build(config, checkpoint, classes=list('abc'))


def test_other_channels(root, drawn_data, tmp_path):
    """What is predicted for is what the config's own pipeline loads."""
    pytest.importorskip('mmseg')
    path = tmp_path / 'gray.tif'
    image = cv2.imread(str(drawn_data / 'images' / 'val' / '0001.jpg'))
    cv2.imwrite(str(path), image[:96])
    config = write_config(tmp_path, root, drawn_data, 'upernet')
    with config.open('a') as file:
        file.write("""
model['backbone']['in_channels'] = 1
model['data_preprocessor'] = dict(mean=[100.], std=[50.], bgr_to_rgb=False)
test_pipeline = test_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile', color_type='grayscale', to_float32=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
""")
    checkpoint = str(write_checkpoint(config, tmp_path / 'gray.pth'))
    from mmseg.apis import inference_model, init_model

    truth = inference_model(init_model(str(config), checkpoint, 'cpu'),
                            str(path)).pred_sem_seg.data[0].numpy()
    predict = build(config, checkpoint, opacity=0.)
    prediction, frame = predict([predict.load(str(path)), image[:96]])
    assert (prediction.label_map == truth).all()
    assert (frame.label_map == truth).all()
    # Gray, but for the names.
    gray = cv2.cvtColor(image[:96], cv2.COLOR_BGR2GRAY)
    same = (prediction.picture == gray[..., None]).all(-1)
    assert same.mean() > .5


def test_names_and_colors(model, tmp_path):
    config, checkpoint = model('upernet')
    content = torch.load(checkpoint)
    names = tuple('abcdefg')
    content['meta'] = dict(dataset_meta=dict(CLASSES=names))
    torch.save(content, tmp_path / 'named.pth')
    # The checkpoint's before the config's, and the user's before both.
    assert build(config, str(tmp_path / 'named.pth')).classes == list(names)
    predict = build(config, checkpoint, classes=list('hijklmn'),
                    palette='voc')
    meta = predict.visualizer.dataset_meta
    assert meta['classes'] == list('hijklmn')
    assert meta['palette'][:2] == [(0, 0, 0), (128, 0, 0)]
    for options, message in (
            (dict(classes=['a', 'b']), '7 classes, and there are 2'),
            (dict(palette='nope'), '--palette nope: mmseg has no such'),
            (dict(palette='lip'), '--palette lip')):
        with pytest.raises(UserError, match=message):
            build(config, checkpoint, **options)


def test_other_checkpoints(model, tmp_path):
    config, checkpoint = model('retinanet')
    whole = torch.load(checkpoint)
    state = whole['state_dict']

    def save(content):
        torch.save(content, tmp_path / 'file.pth')
        return str(tmp_path / 'file.pth')

    backbone = {key[len('backbone.'):]: value for key, value in state.items()
                if key.startswith('backbone.')}
    key = 'bbox_head.retina_cls.weight'
    for content, message in (
            (dict(model=backbone), 'file.pth is a backbone alone'),
            (backbone, 'file.pth is a backbone alone'),
            (dict(state_dict={k: v for k, v in state.items() if k != key}),
             f'file.pth lacks {key}'),
            (dict(state_dict={**state, key: state[key][:9]}),
             f'has another shape: {key}'),
            (dict(weights=state), 'holds no weights of a model')):
        with pytest.raises(CheckpointError, match=message):
            build(config, save(content))
    # mm reads the text of a config in a checkpoint and runs it.
    whole['meta'] = dict(cfg='import os; os.abort()', config='os.abort()')
    assert build(config, save(whole)).classes == list(THINGS)


def test_other_configs(model):
    config, checkpoint = model('retinanet')
    cfg = Config.fromfile(config)
    cfg.default_scope = 'mmrotate'
    with pytest.raises(UserError, match='default_scope .* is mmrotate'):
        build_predictor(cfg, checkpoint)
    cfg = Config.fromfile(config)
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match='no test_dataloader'):
        build_predictor(cfg, checkpoint)
    cfg = Config.fromfile(config)
    cfg.model.type = 'NoSuchNet'
    with pytest.raises(UserError, match='cannot be built: KeyError'):
        build_predictor(cfg, checkpoint, 'cpu')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(model, drawn_data):
    image = cv2.imread(str(drawn_data / 'images' / 'val' / '0000.jpg'))
    for name in MODELS:
        config, checkpoint = model(name)
        cpu, = build(config, checkpoint)([image], score_thr=0.)
        gpu, = build_predictor(Config.fromfile(config), checkpoint, 'cuda')(
            [image], score_thr=0.)
        assert cpu.record.keys() == gpu.record.keys()
        assert cpu.picture.shape == gpu.picture.shape
