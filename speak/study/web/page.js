// The page of a study. It asks the server what comes next and tells it what happened; nothing is kept here.
'use strict';

const main = document.getElementById('main');
const message = document.getElementById('message');
const header = document.getElementById('header');
let study = null; // title, texts, questions: the same for all
let state = null; // where this participant is
let at = 0; // the trial that is shown
let link = ''; // to go on elsewhere; known only after joining in this window

function make(tag, fields = {}, ...children) {
  const { data, ...plain } = fields;
  const node = Object.assign(document.createElement(tag), plain);
  for (const [k, v] of Object.entries(data || {})) node.setAttribute(k, v);
  node.append(...children);
  return node;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  };
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await fetch(path, { ...options, cache: 'no-store', credentials: 'same-origin' });
      const result = await answer.json();
      if (!answer.ok) throw Object.assign(new Error(result.error), { refused: true, status: answer.status });
      message.textContent = '';
      return result;
    } catch (error) {
      if (error.refused || attempt === 20) throw error;
      message.textContent = 'The connection is interrupted; trying again …';
      await new Promise((done) => setTimeout(done, Math.min(500 * (attempt + 1), 5000)));
    }
  }
}

function report(error) {
  message.textContent = error.message;
}

// A button that cannot be pressed twice while its work is under way.
function button(text, work, fields = {}) {
  const b = make('button', { type: 'button', textContent: text, ...fields });
  b.addEventListener('click', async () => {
    b.disabled = true;
    try {
      await work();
    } catch (error) {
      report(error);
    }
    if (b.isConnected) b.disabled = false;
  });
  return b;
}

// Paragraphs, and headings that begin with #: all that the researcher's texts need.
function prose(text) {
  return text.split(/\n\s*\n/).filter((p) => p.trim()).map((p) => p.startsWith('#')
    ? make('h1', { textContent: p.replace(/^#+\s*/, '') })
    : make('p', { textContent: p.replace(/\s*\n\s*/g, ' ').trim() }));
}

function show(...nodes) {
  main.replaceChildren(...nodes);
  window.scrollTo(0, 0);
  const first = main.querySelector('h1') || main;
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
}

function progress() {
  const trials = state && state.stage === 'trials';
  header.hidden = !trials;
  if (!trials) return;
  const done = state.trials.filter((t) => t.scores).length;
  document.getElementById('progress').max = state.trials.length;
  document.getElementById('progress').value = done;
  document.getElementById('progress-label').textContent =
    `Video ${at + 1} of ${state.trials.length}; ${done} answered`;
}

function consent() {
  const agree = make('input', { type: 'checkbox', id: 'agree' });
  const start = button('Start', async () => {
    const ids = Object.fromEntries(new URLSearchParams(location.search));
    const joined = await call('api/join', { agree: agree.checked, ids });
    link = `${location.origin}${location.pathname}#${joined.token}`;
    await refresh();
  }, { disabled: true });
  agree.addEventListener('change', () => { start.disabled = !agree.checked; });
  const label = make('label', { className: 'agree' }, agree,
    make('span', { textContent: 'I have read this, and I agree to take part.' }));
  show(...prose(study.consent), label, make('div', { className: 'buttons' }, make('span'), start));
}

function scale(question, chosen, changed) {
  const box = make('fieldset', {}, make('legend', { textContent: question.text }));
  const row = make('div', { className: 'scale' });
  for (let v = question.low; v <= question.high; v++) {
    const input = make('input', { type: 'radio', name: question.name, value: v, checked: v === chosen });
    const two = question.high - question.low === 1;
    const ends = { [question.low]: question.low_label, [question.high]: question.high_label };
    const words = two ? ends[v] : String(v);
    input.setAttribute('aria-label', two || !ends[v] ? words : `${v}, ${ends[v]}`);
    input.addEventListener('change', () => changed(v));
    row.append(make('label', {}, input, make('span', { textContent: words })));
  }
  box.append(row);
  if (question.high - question.low > 1) {
    box.append(make('div', { className: 'ends', data: { 'aria-hidden': 'true' } },
      make('span', { textContent: question.low_label }), make('span', { textContent: question.high_label })));
  }
  return box;
}

function soundCheck() {
  const audio = make('audio', { src: `media/${state.sound}`, preload: 'auto' });
  let count = null;
  const next = button('Continue', async () => {
    const right = await call('api/sound', { count });
    await refresh();
    if (!right.passed) message.textContent = 'That was not the number of tones. Check your sound and listen again.';
  }, { disabled: true });
  const play = button('Play the tones', () => { audio.currentTime = 0; return audio.play(); });
  const question = { name: 'tones', text: 'How many tones do you hear?', low: 1, high: 6, low_label: '', high_label: '' };
  const heard = scale(question, null, (v) => { count = v; next.disabled = false; });
  heard.querySelector('.ends').remove();
  show(make('h1', { textContent: 'Sound check' }),
    make('p', { textContent: 'Switch your sound on, use headphones if you have them, and play the tones.' }),
    make('p', {}, play), audio, heard,
    make('div', { className: 'buttons' }, make('span'), next));
}

function instructions() {
  const keep = link ? [make('p', { className: 'link' },
    'To go on later on another device, keep this secret link: ', make('a', { href: link, textContent: link }))] : [];
  show(...prose(study.instructions), ...keep, make('div', { className: 'buttons' }, make('span'),
    button('To the first video', () => openTrial(at))));
}

function player(name, which, title, ended) {
  const video = make('video', {
    src: `media/${name}`, preload: 'auto', playsInline: true, disablePictureInPicture: true,
    data: { 'aria-label': title, disableremoteplayback: '' },
  });
  const play = button('▶ Play', () => {
    for (const other of main.querySelectorAll('video')) if (other !== video) other.pause();
    return video.paused ? video.play() : video.pause();
  }, { className: 'play' });
  let end = 0; // as far as was played without a leap
  video.addEventListener('timeupdate', () => { if (!video.seeking && video.currentTime < end + 1) end = Math.max(end, video.currentTime); });
  video.addEventListener('seeking', () => { if (video.currentTime > end + 0.3) video.currentTime = end; });
  video.addEventListener('play', () => { play.textContent = '❚❚ Pause'; });
  video.addEventListener('pause', () => { play.textContent = '▶ Play'; });
  video.addEventListener('ended', () => { play.textContent = '↻ Play again'; ended().catch(report); });
  video.addEventListener('error', () => { message.textContent = 'The video cannot be played here; try another browser.'; });
  return make('div', { className: 'video' }, ...(title ? [make('span', { textContent: title })] : []), video, play);
}

async function openTrial(index) {
  at = index;
  const trial = state.trials[at];
  await call('api/open', { trial: at });
  const all = 2 ** trial.videos.length - 1;
  const scores = { ...trial.scores };
  const last = at === state.trials.length - 1;
  const next = button(last ? 'Finish' : 'Next', async () => {
    await call('api/answer', { trial: at, scores });
    trial.scores = { ...scores };
    const open = state.trials.findIndex((t) => !t.scores);
    if (!last) return openTrial(at + 1);
    if (open >= 0) return openTrial(open);
    await call('api/finish', {});
    return refresh();
  }, { disabled: true });
  const back = button('Back', () => openTrial(at - 1), { className: 'plain', disabled: at === 0 });
  const hint = make('p', { className: 'hint', data: { 'aria-live': 'polite' } });
  const boxes = study.questions.map((q) => scale(q, scores[q.name], (v) => { scores[q.name] = v; update(); }));
  function update() {
    const played = trial.played === all;
    for (const box of boxes) box.disabled = !played;
    next.disabled = !played || study.questions.some((q) => !(q.name in scores));
    hint.textContent = played ? '' : 'Play to the end, then answer.';
    progress();
  }
  const two = trial.videos.length > 1;
  const players = trial.videos.map((name, i) => player(name, i, two ? ['left', 'right'][i] : '', async () => {
    if (trial.played & (1 << i)) return;
    await call('api/played', { trial: at, video: i });
    trial.played |= 1 << i;
    update();
  }));
  show(make('h1', { textContent: `${two ? 'Pair' : 'Video'} ${at + 1}` }),
    make('div', { className: two ? 'trial' : 'trial beside' },
      make('div', {}, make('div', { className: two ? 'videos two' : 'videos' }, ...players), hint),
      make('div', {}, ...boxes)),
    make('div', { className: 'buttons' }, back, next));
  update();
}

function done() {
  const back = study.completion_url
    ? [make('p', {}, make('a', { href: study.completion_url, textContent: 'Return to the site that sent you here' }))] : [];
  show(make('h1', { textContent: 'Thank you!' }),
    make('p', { textContent: 'All your answers are stored. Your completion code:' }),
    make('p', { className: 'code', textContent: state.code }), ...back,
    make('p', { textContent: 'You may close this page.' }));
}

async function refresh() {
  message.textContent = '';
  try {
    state = await call('api/state');
  } catch (error) {
    if (error.status !== 401) throw error;
    state = null;
  }
  progress();
  if (!state) return consent();
  if (state.stage === 'sound') return soundCheck();
  if (state.stage === 'done') return done();
  const open = state.trials.findIndex((t) => !t.scores);
  at = open < 0 ? state.trials.length - 1 : open;
  progress();
  return at === 0 && !state.trials[0].played ? instructions() : openTrial(at);
}

async function begin() {
  study = await call('api/study');
  document.title = study.title;
  if (location.hash.length > 20) {
    const token = location.hash.slice(1);
    history.replaceState(null, '', location.pathname + location.search);
    await call('api/resume', { token }).catch(report);
  }
  await refresh();
}

begin().catch(report);
