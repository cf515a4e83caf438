"A user study as people meet it: the server is killed amid twenty participants, and three take part in a browser."

import contextlib
import csv
import http.cookiejar
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('starlette', reason="the page needs pip install 'speak[study]'")
pytest.importorskip('sqlalchemy', reason="the answers need pip install 'speak[study]'")

from speak.cli import main
from speak.config import FPS, SAMPLE_RATE
from speak.data.video_writer import write_video
from speak.study.answers import Store
from speak.study.build import build_study
from speak.study.records import read_study

METHODS = ('ATVG', 'Ground truth', 'SPEAK')


def make_videos(folder: Path, clips: int, frames: int, size: int) -> Path:
    "A disc that swings before a colour gradient, with a tone."
    y, x = np.mgrid[:size, :size] / size
    t = np.arange(frames * SAMPLE_RATE // FPS) / SAMPLE_RATE
    for m, method in enumerate(METHODS):
        for clip in range(clips):
            pictures = np.empty((frames, size, size, 3), np.uint8)
            pictures[:] = (255 * np.stack([x, y, np.full_like(x, clip / clips)], -1)).astype(np.uint8)
            for i in range(frames):
                inside = (x - 0.5 - 0.2 * np.sin(i / 5)) ** 2 + (y - 0.5) ** 2 < 0.06
                pictures[i][inside] = (230, 190 - 40 * m, 160)
            path = folder / method / 'MEAD' / f'clip{clip}.mp4'
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, pictures, 0.1 * np.sin(2 * np.pi * (220 + 30 * clip) * t))
    return folder


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    "A study of three methods, nine clips and a check."
    tmp = tmp_path_factory.mktemp('study')
    build_study(make_videos(tmp / 'videos', 10, 15, 32), tmp / 'study', checks=1, jobs=1)
    return tmp / 'study'


@pytest.fixture
def folder(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / 'study'))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Server:
    "`speak study serve` in a process of its own."

    def __init__(self, folder: Path, database: str = '') -> None:
        self.port = free_port()
        options = ('--database', database) if database else ()
        words = ('study', 'serve', str(folder), '--port', str(self.port), *options)
        self.command = [sys.executable, '-c', 'import sys; from speak.cli import main; sys.exit(main())', *words]
        self.address = f'http://127.0.0.1:{self.port}'
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.address in self.process.stdout.readline(), self.process.stderr.read()

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


class Person:
    "A participant without a browser, who tries again where the server does not answer, as the page does."

    def __init__(self, address: str, seed: int, sounds: dict[str, int]) -> None:
        self.address, self.sounds, self.random = address, sounds, random.Random(seed)
        self.jar = http.cookiejar.CookieJar()
        self.web = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.acknowledged: dict[int, dict] = {}
        self.code = ''

    def call(self, path: str, fields: dict | None = None) -> dict:
        data = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(f'{self.address}/api/{path}', data, {'Content-Type': 'application/json'})
        for _ in range(300):
            try:
                with self.web.open(request, timeout=20) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                raise AssertionError(f'{path} {fields}: {e.code} {e.read().decode()}') from e
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
        raise AssertionError(f'{path}: no answer')

    def take_part(self) -> None:
        self.call('join', dict(agree=True, ids=dict(PROLIFIC_PID=f'p{self.random.random()}')))
        self.call('sound', dict(count=self.sounds[self.call('state')['sound']]))
        for i, trial in enumerate(self.call('state')['trials']):
            self.call('open', dict(trial=i))
            for video in range(len(trial['videos'])):
                self.call('played', dict(trial=i, video=video))
            names = ('Lip-sync', 'Head naturalness', 'Video realness')
            scores = {n: self.random.randint(1, 5) for n in names}
            self.call('answer', dict(trial=i, scores=scores))
            self.acknowledged[i] = scores
        self.code = self.call('finish', {})['code']


def killed_amid_twenty(folder: Path, database: str = '') -> None:
    "Every answer that the server acknowledged is there once and as given, though it is killed twice meanwhile."
    study, server = read_study(folder), Server(folder, database)
    people = [Person(server.address, seed, study.sounds) for seed in range(20)]
    threads = [threading.Thread(target=p.take_part) for p in people]
    for t in threads:
        t.start()
    kills = 0
    for share in (0.25, 0.6):
        while sum(len(p.acknowledged) for p in people) < share * 20 * 10 and any(t.is_alive() for t in threads):
            time.sleep(0.01)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        kills += 1
        server.start()
    for t in threads:
        t.join(120)
    assert kills == 2 and all(p.code for p in people)
    rows = Store(study, database).export_rows()
    server.stop(signal.SIGINT)
    keys = [(r['participant'], r['trial'], r['question']) for r in rows]
    assert len(keys) == len(set(keys)) == 20 * 10 * 3
    assert all(r['finished'] for r in rows)
    ids = {f'p{random.Random(seed).random()}'.replace('.', ''): seed for seed in range(20)}
    for r in rows:
        assert people[ids[r['platform_id']]].acknowledged[r['trial']][r['question']] == r['score'], r


def test_killing_the_server_loses_and_doubles_nothing(folder):
    killed_amid_twenty(folder)


@pytest.fixture
def postgres():
    "The address of a PostgreSQL server that runs for the test."
    pytest.importorskip('psycopg', reason="pip install 'speak[postgresql]'")
    found = sorted(Path('/usr/lib/postgresql').glob('*/bin/initdb'))
    if not found:
        pytest.skip('PostgreSQL is not installed: apt-get install postgresql')
    data, port = Path(tempfile.mkdtemp()), free_port()
    prefix: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if not shutil.which('runuser'):
            pytest.skip('PostgreSQL does not run as root, and there is no runuser')
        prefix = ['runuser', '-u', 'nobody', '--']
        shutil.chown(data, 'nobody')
    run = dict(check=True, cwd='/')
    subprocess.run([*prefix, str(found[-1]), '-D', str(data), '-U', 'study', '-A', 'trust'], **run)
    control = [*prefix, str(found[-1].parent / 'pg_ctl'), '-D', str(data), '-l', str(data / 'log'), '-w']
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    subprocess.run([*control, '-o', options, 'start'], **run)
    yield f'postgresql+psycopg://study@127.0.0.1:{port}/postgres'
    subprocess.run([*control, '-m', 'immediate', 'stop'], **run)
    shutil.rmtree(data)


@pytest.mark.slow
def test_killing_the_server_on_postgresql(folder, postgres):
    killed_amid_twenty(folder, postgres)
    assert not (folder / 'answers.sqlite').exists()


def command(*words: object) -> tuple[int, str]:
    "Exit status and what `speak` said; in this process, as PyTorch takes seconds to load."
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main([str(w) for w in words])
    return status, said.getvalue()


def test_mistakes_are_sentences(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, sentence in [
            (('study', 'serve', tmp_path / 'none'), 'has no study.json'),
            (('study', 'serve', folder, '--port', port), f'port {port} of 127.0.0.1 cannot be served'),
            (('study', 'serve', folder, '--database', 'mysql://a/b'), 'is no database for answers'),
            (('study', 'serve', folder, '--database', ''), '--database is empty'),
            (('study', 'export', folder, '--out', tmp_path / 'a.txt'), 'has not the extension'),
            (('study', 'build', tmp_path / 'none', '--out', tmp_path / 'new'), 'is no folder'),
        ]:
            status, said = command(*words)
            assert status == 1 and sentence in said and 'Traceback' not in said, said
            assert said.splitlines()[-1].startswith('speak: error: '), said


def test_build_prints_how_many_people_it_takes(tmp_path):
    make_videos(tmp_path / 'videos', 4, 15, 32)
    status, said = command(
        'study', 'build', tmp_path / 'videos', '--out', tmp_path / 'study', '--checks', 1, '--jobs', 1
    )
    assert status == 0 and 'participants' in said and 'next: fill in' in said, said


# A browser


CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = (
    '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync --autoplay-policy=user-gesture-required'
)
PHONE = dict(viewport=dict(width=390, height=844), device_scale_factor=2, is_mobile=True, has_touch=True)
DESKTOP = dict(viewport=dict(width=1280, height=800))


@pytest.fixture
def browser():
    "Debian's Chromium."
    api = pytest.importorskip('playwright.sync_api', reason="a browser test needs pip install 'speak[browser]'")
    if not CHROMIUM:
        pytest.skip('Chromium is not installed: apt-get install chromium')
    with api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()


class Visitor:
    "A participant in a browser of his own; every request that leaves the server's host is noted."

    def __init__(
        self, browser, server: Server, sounds: dict[str, int], name: str, shots: Path | None, **device
    ) -> None:
        self.context, self.sounds, self.name, self.shots = browser.new_context(**device), sounds, name, shots
        self.page, self.foreign, self.wrong = self.context.new_page(), [], []
        ours = (server.address, 'data:', 'blob:')
        self.page.on('request', lambda r: r.url.startswith(ours) or self.foreign.append(r.url))
        self.page.on('console', lambda m: m.type == 'error' and '401' not in m.text and self.wrong.append(m.text))
        self.page.on('pageerror', lambda e: self.wrong.append(str(e)))
        self.page.goto(f'{server.address}/?PROLIFIC_PID={name}&STUDY_ID=s1')

    def shot(self, what: str) -> None:
        if self.shots:
            self.page.screenshot(path=self.shots / f'{self.name}-{what}.png')

    def wide(self) -> bool:
        "Whether the page has to be scrolled sideways."
        return self.page.evaluate('document.documentElement.scrollWidth > innerWidth')

    def consent(self) -> None:
        start = self.page.get_by_role('button', name='Start')
        start.wait_for()
        assert start.is_disabled()
        self.shot('consent')
        self.page.get_by_label('I have read this').check()
        start.click()
        self.page.get_by_role('heading', name='Sound check').wait_for()

    def sound(self) -> None:
        source = self.page.locator('audio').get_attribute('src')
        self.page.get_by_role('button', name='Play the tones').click()
        self.shot('sound')
        self.page.get_by_label(str(self.sounds[source.split('/')[-1]]), exact=True).check(force=True)
        self.page.get_by_role('button', name='Continue').click()
        self.page.get_by_role('button', name='To the first video').wait_for()
        self.shot('instructions')
        self.page.get_by_role('button', name='To the first video').click()

    def at(self, n: int) -> None:
        self.page.get_by_text(f'Video {n + 1} of ').wait_for()

    def play(self) -> None:
        self.page.get_by_role('button', name='Play').click()
        self.page.locator('fieldset:not(:disabled)').first.wait_for(timeout=15000)

    def rate(self, scores: tuple[int, int, int]) -> None:
        for box, score in zip(self.page.locator('fieldset').all(), scores):
            box.locator(f'input[value="{score}"]').check(force=True)

    def next(self, name: str = 'Next') -> None:
        self.page.get_by_role('button', name=name).click()


@pytest.mark.slow
def test_three_take_part_at_once_and_one_reloads(built, tmp_path, browser):
    folder = Path(shutil.copytree(built, tmp_path / 'study'))
    server, study = Server(folder), read_study(folder)
    shots = os.environ.get('SPEAK_SHOTS')
    shots = Path(shots) if shots else None
    people = [
        Visitor(browser, server, study.sounds, name, shots, **device)
        for name, device in (('ann', DESKTOP), ('bob', PHONE), ('eve', DESKTOP))
    ]
    scores = {v.name: [((i + k) % 5 + 1, (i * k) % 5 + 1, 3) for i in range(10)] for k, v in enumerate(people)}
    for v in people:
        v.consent()
    for v in people:
        v.sound()
    for i in range(10):
        for v in people:
            v.at(i)
        if i == 4:  # Ann reloads amid a trial: its video counts as played, and she is where she was
            people[0].play()
            people[0].page.reload()
            people[0].at(4)
            people[0].page.locator('fieldset:not(:disabled)').first.wait_for()
            assert people[0].page.locator('fieldset:not(:disabled)').count() == 3
        for v in people:
            assert v.page.get_by_role('button', name='Next' if i < 9 else 'Finish').is_disabled()
            if i == 0:
                v.shot('before')
            if not (i == 4 and v is people[0]):
                v.play()
            v.rate(scores[v.name][i])
            if i == 1:
                v.shot('rated')
            assert not v.wide()
        if i == 6:  # Bob goes back and changes an answer
            people[1].next('Back')
            people[1].at(5)
            scores['bob'][5] = (5, 5, 5)
            people[1].rate((5, 5, 5))
            people[1].next()
            people[1].at(6)
            people[1].rate(scores['bob'][6])
        for v in people:
            v.next('Next' if i < 9 else 'Finish')
    codes = set()
    for v in people:
        v.page.get_by_role('heading', name='Thank you!').wait_for()
        v.shot('done')
        codes.add(v.page.locator('.code').inner_text())
        assert not v.foreign and not v.wrong, (v.foreign, v.wrong)
    assert len(codes) == 3
    status, said = command('study', 'export', folder, '--out', tmp_path / 'answers.csv')
    assert status == 0 and '90 scores' in said, said
    names = ('Lip-sync', 'Head naturalness', 'Video realness')
    with open(tmp_path / 'answers.csv', newline='', encoding='utf8') as f:
        for r in csv.DictReader(f):
            assert int(r['score']) == scores[r['platform_id']][int(r['trial'])][names.index(r['question'])], r
    server.stop(signal.SIGINT)


@pytest.mark.slow
def test_by_keyboard_alone(built, tmp_path, browser):
    folder = Path(shutil.copytree(built, tmp_path / 'study'))
    server, study = Server(folder), read_study(folder)
    v = Visitor(browser, server, study.sounds, 'kay', None, **DESKTOP)
    keys = v.page.keyboard

    def focused(kind: str, tries: int = 12) -> None:
        "Tab until the focus is on what `kind` selects."
        for _ in range(tries):
            if v.page.evaluate('k => document.activeElement.matches(k)', kind):
                return
            keys.press('Tab')
        raise AssertionError(f'{kind} is not reached by Tab')

    v.page.get_by_role('button', name='Start').wait_for()
    focused('#agree')
    keys.press('Space')
    focused('button:not(:disabled)')
    keys.press('Enter')
    v.page.get_by_role('heading', name='Sound check').wait_for()
    count = study.sounds[v.page.locator('audio').get_attribute('src').split('/')[-1]]
    focused('input')
    keys.press('Space')  # one
    for _ in range(count - 1):
        keys.press('ArrowRight')
    focused('.buttons button:not(:disabled)')
    keys.press('Enter')
    v.page.get_by_role('button', name='To the first video').wait_for()
    focused('.buttons button')
    keys.press('Enter')
    for i in range(10):
        v.at(i)
        focused('.play')
        keys.press('Space')
        v.page.locator('fieldset:not(:disabled)').first.wait_for(timeout=15000)
        for question in study.questions:
            focused(f'input[name="{question.name}"]')
            keys.press('Space')
            keys.press('ArrowRight')
            keys.press('Tab')
        focused('.buttons button:last-child:not(:disabled)')
        keys.press('Enter')
    v.page.get_by_role('heading', name='Thank you!').wait_for()
    assert {r['score'] for r in Store(study).export_rows()} == {2}
    server.stop(signal.SIGINT)


@pytest.mark.slow
def test_forced_choice_in_a_browser(tmp_path, browser):
    build_study(make_videos(tmp_path / 'videos', 6, 15, 64), tmp_path / 'study', mode='choice', checks=1, jobs=1)
    server, study = Server(tmp_path / 'study'), read_study(tmp_path / 'study')
    shots = os.environ.get('SPEAK_SHOTS')
    v = Visitor(browser, server, study.sounds, 'pia', Path(shots) if shots else None, **PHONE)
    v.consent()
    v.sound()
    n = len(study.sequences[0])
    for i in range(n):
        v.at(i)
        plays = v.page.locator('.play')
        plays.nth(0).click()
        v.page.locator('.play', has_text='again').first.wait_for(timeout=15000)
        assert v.page.locator('fieldset:disabled').count() == 1
        plays.nth(1).click()
        v.page.locator('fieldset:not(:disabled)').first.wait_for(timeout=15000)
        v.page.get_by_label('left', exact=True).last.check(force=True)
        if i == 1:
            v.shot('pair')
        v.next('Next' if i < n - 1 else 'Finish')
    v.page.get_by_role('heading', name='Thank you!').wait_for()
    assert not v.foreign and not v.wrong and not v.wide()
    rows = Store(study).export_rows()
    assert len(rows) == n and {r['score'] for r in rows} <= {0, 1}
    server.stop(signal.SIGINT)


# The notebooks


@pytest.mark.slow
def test_the_report_of_an_export(folder, tmp_path):
    "From the database to Table 2, by the command and the notebook; and nothing of it says simulated."
    import papermill

    study, store = read_study(folder), Store(read_study(folder))
    for seed in range(8):
        token, chance = store.join({}), random.Random(seed)
        while not store.pass_sound(token, study.sounds[store.state(token)['sound']]):
            pass
        for i, trial in enumerate(store.state(token)['trials']):
            video = study.videos[trial['videos'][0]]
            store.play(token, i, 0, ended=False)
            store.play(token, i, 0, ended=True)
            high = 1 if video['kind'] == 'check' else 5 if video['method'] == 'SPEAK' else 3
            store.answer(token, i, {q.name: max(1, high - chance.randint(0, 1)) for q in study.questions})
        store.finish(token)
    status, said = command('study', 'export', folder, '--out', tmp_path / 'answers.csv')
    assert status == 0 and '240 scores' in said, said
    nbs = Path(__file__).parents[1] / 'nbs'
    words = dict(answers=str(tmp_path / 'answers.csv'), out=str(tmp_path / 'tables'), fast_share=1.0)
    done = tmp_path / 'report.ipynb'
    papermill.execute_notebook(nbs / 'user_study_report.ipynb', done, words, cwd=nbs, progress_bar=False)
    text = (tmp_path / 'tables' / 'table2.md').read_text(encoding='utf8')
    assert '| MEAD | SPEAK | 4.12 |' in text and 'SIMULATED' not in text, text
    assert '8 of 8 participants are kept' in done.read_text(encoding='utf8')
