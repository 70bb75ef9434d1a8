// The page: its frame, which view is shown, and the one call a second that brings news while somebody looks.

import { Gone, Refused, call, isSignedIn, onSignInNeeded, signOut } from './api.js';
import { h, morph, select } from './dom.js';
import { clock, zone } from './format.js';
import { askForSecret } from './login.js';
import { LANGUAGES, language, setLanguage, t } from './text.js';
import * as history from './history.js';
import * as now from './now.js';
import * as proxies from './proxies.js';
import * as transfer from './transfer.js';

const VIEWS = { now, proxies, history, transfer };
const PAUSE = 1000;
const THEMES = ['auto', 'light', 'dark'];

const app = {
  // Of getJournalStatus, the last that came; null before the first.
  status: null,
  isSignedIn: false,
  // Since when the server does not answer, or null.
  goneSince: null,
  // What getJournalStatus was refused with, or null.
  refused: null,
  notices: [],
  render,
  notify,
  go,
  query: {},
};
let view = 'now';

// Only how the page looks is kept in the browser.
function remembered(name) {
  try {
    return localStorage.getItem(`zlm-journal-${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`zlm-journal-${name}`, value);
  } catch {
    // A browser that keeps nothing asks for nothing either.
  }
}

const prefersDark = matchMedia('(prefers-color-scheme: dark)');
let theme = THEMES.includes(remembered('theme')) ? remembered('theme') : 'auto';

function setTheme(name) {
  theme = name;
  showTheme();
}

function showTheme() {
  document.documentElement.dataset.theme = theme === 'auto' ? (prefersDark.matches ? 'dark' : 'light') : theme;
}

function route() {
  const [name, query = ''] = location.hash.slice(1).split('?');
  view = Object.hasOwn(VIEWS, name) ? name : 'now';
  app.query = Object.fromEntries(new URLSearchParams(query));
  if (app.isSignedIn) VIEWS[view].enter(app);
  render();
}

function go(name, query = {}) {
  const text = new URLSearchParams(query).toString();
  location.hash = text ? `${name}?${text}` : name;
}

let lastNotice = 0;

// Says something at the edge of the page; `action` is a button that goes with it: { text, run }.
function notify(text, { isError = false, action = null } = {}) {
  const notice = { id: ++lastNotice, text, isError, action };
  // Errors stay until they are dismissed; of the others, the newest counts.
  app.notices = [...app.notices.filter((other) => other.isError).slice(-3), notice];
  if (!isError) setTimeout(() => dismiss(notice), action ? 30_000 : 8000);
  render();
}

function dismiss(notice) {
  app.notices = app.notices.filter((other) => other !== notice);
  render();
}

let willRender = false;

function render() {
  if (willRender) return;
  willRender = true;
  queueMicrotask(() => {
    willRender = false;
    document.title = `${t('title')} · ${location.host}`;
    document.documentElement.lang = language();
    morph(document.getElementById('page'), frame());
  });
}

function frame() {
  const tab = (name) =>
    h('a', { href: `#${name}`, 'aria-current': name === view ? 'page' : false, test: `tab-${name}` }, t(`tab.${name}`));
  const choose = (name, values, value, textOf, set) => {
    const onchange = (event) => {
      set(event.target.value);
      remember(name, event.target.value);
      render();
    };
    return select({ 'aria-label': t(name), test: name, value, onchange }, values, textOf);
  };
  return [
    h('a', { class: 'skip', href: '#main', onclick: skip }, t('skip')),
    h('header', { class: 'top' },
      h('h1', {}, t('title'), h('span', { class: 'host' }, location.host)),
      app.isSignedIn && h('nav', { 'aria-label': t('nav') }, Object.keys(VIEWS).map(tab)),
      h('div', { class: 'tools' },
        choose('language', Object.keys(LANGUAGES), language(), (each) => LANGUAGES[each], setLanguage),
        choose('theme', THEMES, theme, (each) => t(`theme.${each}`), setTheme),
        app.isSignedIn && h('button', { onclick: leave, test: 'sign-out' }, t('signOut')))),
    h('div', { role: 'alert', class: 'banners' }, banners()),
    h('main', { id: 'main', tabindex: -1, test: `view-${view}` }, app.isSignedIn && VIEWS[view].view(app)),
    h('footer', {}, app.status && t('about', { version: app.status.version, build: app.status.build_id }),
      ' ', t('zone', { zone: zone() })),
    h('div', { role: 'status', class: 'notices' }, app.notices.map(noticeView)),
  ];
}

function skip(event) {
  event.preventDefault();
  document.getElementById('main').focus();
}

function banners() {
  return [
    app.goneSince !== null &&
      h('p', { class: 'banner bad', test: 'gone' }, t('gone', { time: clock(app.goneSince) })),
    app.refused !== null && h('p', { class: 'banner bad', test: 'refused' }, app.refused),
  ];
}

function noticeView(notice) {
  return h('div', { class: notice.isError ? 'notice bad' : 'notice', 'data-id': notice.id, test: notice.isError ? 'error' : 'notice' },
    h('span', { dir: 'auto' }, notice.text),
    notice.action && h('button', {
      test: 'notice-action',
      onclick: () => { dismiss(notice); notice.action.run(); },
    }, notice.action.text),
    h('button', { class: 'quiet', 'aria-label': t('dismiss'), onclick: () => dismiss(notice) }, '×'));
}

async function leave() {
  try {
    await signOut();
  } catch (error) {
    return notify(error.message, { isError: true });
  }
  // Nothing of what was seen stays in memory.
  location.reload();
}

// Takes the reply of getJournalStatus; a view may ask for more of it.
async function look(args) {
  const reply = await call('getJournalStatus', args);
  app.status = reply.data;
}

let timer = null;
let isLooking = false;

// One call, then a pause: never two at a time, and none while nobody looks.
async function tick() {
  clearTimeout(timer);
  if (document.hidden || isLooking) return;
  isLooking = true;
  try {
    const current = VIEWS[view];
    if (!(await current.refresh?.(app))) await look({ limit: current.shows ?? 0 });
    if (app.goneSince !== null) notify(t('back'));
    app.goneSince = null;
    app.refused = null;
  } catch (error) {
    if (error instanceof Gone) app.goneSince ??= Date.now();
    else if (error instanceof Refused) app.refused = error.message;
    else throw error;
  } finally {
    isLooking = false;
    render();
    timer = setTimeout(tick, PAUSE);
  }
}

let signingIn = null;

// All calls that find the login ended wait for the same dialog; what is shown stays behind it.
onSignInNeeded((reply) => {
  signingIn ??= askForSecret(app, reply).finally(() => (signingIn = null));
  return signingIn;
});

async function begin() {
  setLanguage(remembered('language') ?? navigator.language);
  showTheme();
  prefersDark.addEventListener('change', showTheme);
  addEventListener('hashchange', route);
  document.addEventListener('visibilitychange', tick);
  // A file that is dropped beside its place must not take the page away.
  for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());
  route();
  while (!app.isSignedIn) {
    try {
      if (!(await isSignedIn())) await askForSecret(app);
      app.isSignedIn = true;
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      app.goneSince ??= Date.now();
      render();
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }
  app.goneSince = null;
  route();
  tick();
}

begin();
