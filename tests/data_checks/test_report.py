"""A report has each finding once."""

from mmcyclemlp.data_checks.report import Finding, Report, some


def test_findings_are_reported_once():
    report = Report()
    report.split = 'train'
    for _ in range(2):
        report.error('kind', 'text', ['a'])
        report.remark('other kind', 'text')
    report.split = 'val'
    report.error('kind', 'text', ['a'])
    assert report.findings == [
        Finding('kind', 'text', ('a', ), True, 'train'),
        Finding('other kind', 'text', (), False, 'train'),
        Finding('kind', 'text', ('a', ), True, 'val')]


def test_a_repeated_error_is_known_to_a_second_data_set():
    report = Report()
    report.error('kind', 'text')
    report.wrong = set()
    report.error('kind', 'text')
    report.remark('other kind', 'text')
    assert report.wrong == {'kind'} and len(report.findings) == 2


def test_some_names():
    assert some([]) == 'none'
    assert some(range(5)) == '0, 1, 2, 3, 4'
    assert some(range(7)) == '0, 1, 2, 3, 4 and 2 more'
