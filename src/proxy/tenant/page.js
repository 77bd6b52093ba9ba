'use strict';

// Between two looks, in milliseconds; longer when the proxy has not answered.
const PAUSE = 2000, LONG_PAUSE = 5000;

// What the words for the causes of failures say.
const CAUSES = {
  'no-backend': 'No backend was connected in time',
  'backends-busy': 'Every slot was busy until the time was up',
  'queue-full': 'As many requests as may wait were waiting',
  'key-queue-full': 'As many requests as may wait for this key were waiting',
  'key-rate': 'More requests came in a second than this key allows',
  'backend-closed': 'The backend closed without an answer',
  'backend-bad-response': 'The backend sent something that is not HTTP',
  'backend-timeout': 'The backend did not answer in time',
  'backend-stalled': 'The backend stopped reading or writing',
  'retries-used-up': 'Every backend that was tried failed',
  undelivered: 'The backend could not reach its application',
};

// The host key, while there is one. It is nowhere else.
let key = null;
let timer = 0;

const at = (id) => document.getElementById(id);

// An element with a text, or with other elements.
function make(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function say(text) {
  at('wrong').textContent = text;
  at('wrong').hidden = text === '';
}

function forget(why) {
  key = null;
  clearTimeout(timer);
  at('state').hidden = true;
  at('hosts').replaceChildren();
  at('form').hidden = false;
  at('key').value = '';
  say(why);
  at('key').focus();
}

function again(pause) {
  clearTimeout(timer);
  timer = setTimeout(look, pause);
}

async function look() {
  const asked = key;
  if (asked === null) return;
  let response, text;
  try {
    response = await fetch('state.json', { headers: { Authorization: `Bearer ${asked}` }, cache: 'no-store', credentials: 'omit' });
    text = await response.text();
  } catch {
    if (asked !== key) return;
    at('status').textContent = 'The proxy does not answer.';
    if (at('state').hidden) say('The proxy does not answer.');
    return again(LONG_PAUSE);
  }
  // It may have been forgotten meanwhile.
  if (asked !== key) return;
  if (response.status === 401) return forget(`Refused: ${text.trim()}`);
  if (!response.ok) {
    const seconds = Number(response.headers.get('Retry-After')) || LONG_PAUSE / 1000;
    say(`${text.trim()}; asking again in ${seconds} s`);
    return again(seconds * 1000);
  }
  try {
    show(JSON.parse(text));
  } catch {
    say('The proxy has answered something else.');
    return again(LONG_PAUSE);
  }
  again(PAUSE);
}

function show(state) {
  say('');
  at('form').hidden = true;
  at('key').value = '';
  at('state').hidden = false;
  at('scope').textContent = scope(state.key);
  at('status').textContent = `As of ${time(state.at)}.`;
  at('none').hidden = state.hosts.length > 0;
  at('more').hidden = state.more === 0;
  at('more').textContent = `${state.more} more are not shown.`;
  at('hosts').replaceChildren(...state.hosts.map((host) => card(host, state.at)));
}

// What the key allows, in one line.
function scope({ name, prefix, methods, bridges, expires }) {
  const parts = [`Key for ${name} and below`];
  if (prefix !== '/') parts.push(`paths below ${prefix}`);
  if (methods) parts.push(methods.join(', '));
  if (bridges) parts.push(bridges === 1 ? '1 bridge' : `${bridges} bridges`);
  if (expires) parts.push(`until ${time(expires)}`);
  return `${parts.join('; ')}.`;
}

function card(host, now) {
  const path = host.prefix === '/' ? '' : host.prefix;
  const article = make('article', make('h2', host.hosts.join(', ') + path));
  if (host.predicates.length) {
    const takes = make('p', `Only requests with ${host.predicates.join('; ')}`);
    takes.className = 'given';
    article.append(takes);
  }
  if (host.drained) article.append(make('p', 'The operator has drained this host.'));
  article.append(figures(host));
  if (host.errors.length) article.append(make('h3', 'Last errors'), errors(host.errors, now));
  return article;
}

function figures({ parked, busy, withdrawn, waiting, oldest, answers }) {
  const list = make('dl');
  const add = (name, value) => list.append(make('div', make('dt', name), make('dd', String(value))));
  add('free', parked);
  add('busy', busy);
  if (withdrawn) add('without a place', withdrawn);
  add('waiting', waiting);
  if (waiting) add('oldest waits', `${(oldest / 1000).toFixed(1)} s`);
  add('answered', answers.reduce((sum, count) => sum + count, 0));
  add('of them 5xx', answers[4]);
  return list;
}

function errors(list, now) {
  const head = make('tr', ...['When', 'What', 'The client', 'Times'].map((text) => make('th', text)));
  const rows = list.map(({ at, reason, outcome, status, count }) => {
    const client = { answered: `got ${status}`, repeated: 'went on to another backend', cut: 'was cut off' }[outcome];
    const what = Object.hasOwn(CAUSES, reason) ? CAUSES[reason] : reason;
    return make('tr', ...[ago(now - at), what, client, String(count)].map((text) => make('td', text)));
  });
  return make('table', make('thead', head), make('tbody', ...rows));
}

function ago(seconds) {
  const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(([size]) => seconds >= size) ?? [1, 's'];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit} ago`;
}

function time(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toLocaleString();
}

at('form').addEventListener('submit', (event) => {
  event.preventDefault();
  key = at('key').value.trim();
  // A field of HTTP has nothing else; a key has none of it.
  if (!/^[\x21-\x7e]+$/.test(key)) return forget('This is no host key.');
  say('');
  look();
});
at('forget').addEventListener('click', () => forget(''));
// A browser may keep the page for its Back button.
window.addEventListener('pagehide', () => forget(''));
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else if (key !== null) look();
});
