"The preparation of a corpus on a dask cluster, one of whose workers is killed half way."

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from speak.data.prepare.corpus import prepare
from speak.data.prepare.fixtures import make_fixture_corpus
from speak.data.prepare.parallel import on_cluster

SETTINGS = dict(size=64, shortest_s=0.3, upscale=4, progress=False)


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob('*'))
        if p.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize('shard', [0, 3])
def test_a_worker_dies(tmp_path, shard):
    distributed = pytest.importorskip('distributed', reason="dask is not installed: pip install 'speak[cluster]'")
    raw = make_fixture_corpus('mead', tmp_path / 'raw')
    prepare('mead', raw, tmp_path / 'alone', shard=shard, **SETTINGS)
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        pids, killed = [w.pid for w in cluster.workers.values()], []

        def kill():
            while not list((tmp_path / 'many' / 'records').glob('*.json')):
                time.sleep(0.01)
            os.kill(pids[1], signal.SIGKILL)
            killed.append(pids[1])

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with on_cluster(cluster.scheduler_address):
            summary = prepare('mead', raw, tmp_path / 'many', shard=shard, **SETTINGS)
        killer.join(5)
    assert killed, 'the work ended before a worker could be killed'
    assert summary.clips
    assert digests(tmp_path / 'many') == digests(tmp_path / 'alone')  # nothing lost, nothing doubled, to the byte
