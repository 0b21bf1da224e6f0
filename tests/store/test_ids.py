from kdbench.store import ids as ids_


def test_ids_are_shortened_as_far_as_they_mean_one_run():
    ids = ["ce-d-r-s1-aaaabbbb", "ce-d-r-s10-cccc", "kd-d-r-s1-aaaa1", "kd-d-r-s1-aaaa2", "odd"]
    short = ids_.short_names(ids)
    assert list(short.values()) == ["ce-d-r-s1", "ce-d-r-s10", "kd-d-r-s1-aaaa1", "kd-d-r-s1-aaaa2", "odd"]
    for id_ in ids:
        assert ids_.one(short[id_], ids) == id_
