// The list of proxies: a page of it at a time, what each does and why.

import { call } from './api.js';
import { MOST_ITEMS, choose, chosen, idOf, remove, setState, start } from './chosen.js';
import { button, h, select } from './dom.js';
import { edit } from './editor.js';
import { number, relative, time } from './format.js';
import { DOING, KEPT, nextTry } from './now.js';
import { KINDS, textOf, urlOf } from './review.js';
import { t } from './text.js';

const ON_PAGE = 100;
// At least so long between two looks at the list, in milliseconds.
const PAUSE = 5000;
// After so long, the attempts and the times of the next ones are old.
const OLD = 15_000;

const NO_FILTER = { text: '', kind: '', state: '', doing: '', label: '' };

let filter = { ...NO_FILTER };
// Where each page up to the current one begins; the first begins at undefined.
let cursors = [undefined];
let page = null;
let problem = null;
let loads = 0;
let isLoading = false;
let shownOf = null;
let loadedAt = 0;

export function enter(app) {
  const wanted = { ...NO_FILTER, ...Object.fromEntries(Object.entries(app.query).filter(([name]) => name in NO_FILTER)) };
  if (page && textOf(wanted) === textOf(filter)) return;
  filter = wanted;
  cursors = [undefined];
  load(app);
}

const signOf = (status) => status && textOf([status.seq, { ...status.now, proxies: null }]);

async function load(app) {
  const mine = ++loads;
  isLoading = true;
  app.render();
  try {
    const rows = [];
    let seq;
    const next = await read(cursors.at(-1), ON_PAGE, true, (reply) => {
      rows.push(...reply.data);
      // The oldest answer says what was seen.
      seq ??= reply.journal.seq;
    });
    // An answer to an earlier question is of no use.
    if (mine !== loads) return;
    [page, problem] = [{ rows, next, seq }, null];
    for (const row of page.rows) {
      // What is shown now is what whoever decides has seen.
      if (chosen.has(idOf(row))) choose(row, page.seq);
    }
  } catch (error) {
    if (mine !== loads) return;
    problem = error.message;
  } finally {
    if (mine === loads) {
      isLoading = false;
      loadedAt = Date.now();
      shownOf = signOf(app.status);
    }
    app.render();
  }
}

// Follows `next` until there are enough: a call with a filter stops after a number of entries.
async function read(after, limit, isLive, take) {
  const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value));
  let [next, count] = [after, 0];
  do {
    const args = { ...given, live: isLive ? 1 : null, limit: Math.min(MOST_ITEMS, limit - count), after: next };
    const reply = await call('listJournal', args);
    take(reply);
    next = reply.next;
    count += reply.data.length;
  } while (next !== null && count < limit);
  return next;
}

// The one call of this second, if the list may have changed. False: the status is asked instead.
export async function refresh(app) {
  const age = Date.now() - loadedAt;
  if (isLoading || !page || age < PAUSE || (age < OLD && !problem && signOf(app.status) === shownOf)) return false;
  await load(app);
  return problem === null;
}

function set(app, name, value) {
  filter = { ...filter, [name]: value };
  const query = Object.fromEntries(Object.entries(filter).filter(([, each]) => each));
  const text = new URLSearchParams(query).toString();
  window.history.replaceState(null, '', text ? `#proxies?${text}` : '#proxies');
  cursors = [undefined];
  load(app);
}

let typing = null;

function type(app, name, value) {
  clearTimeout(typing);
  filter = { ...filter, [name]: value };
  typing = setTimeout(() => set(app, name, value), 250);
}

export function view(app) {
  const rows = page?.rows ?? [];
  return h('div', { class: 'list' },
    h('div', { class: 'head' }, h('h2', {}, t('tab.proxies')),
      button('add', t('add'), () => edit(app, null).then((done) => done && load(app)), { class: 'main' })),
    filters(app),
    actions(app, rows),
    problem && h('p', { class: 'problem', role: 'alert', dir: 'auto', test: 'list-error' }, problem),
    page === null && h('p', { class: 'empty' }, t('wait')),
    page !== null && rows.length === 0 && h('p', { class: 'empty', test: 'list-empty' }, t('list.empty')),
    rows.length > 0 && table(app, rows),
    pager(app));
}

function filters(app) {
  const text = (name) =>
    h('label', {}, t(`filter.${name}`),
      h('input', {
        type: 'search', value: filter[name], test: `filter-${name}`, oninput: (event) => type(app, name, event.target.value),
      }));
  const one = (name, values, labelOf) =>
    h('label', {}, t(`filter.${name}`),
      select({ value: filter[name], onchange: (event) => set(app, name, event.target.value), test: `filter-${name}` },
        ['', ...values], (each) => (each ? labelOf(each) : t('filter.all'))));
  return h('form', { class: 'filters', role: 'search', 'aria-label': t('filter'), onsubmit: (event) => event.preventDefault() },
    text('text'), one('kind', KINDS, (each) => t(`kind.${each}`)), one('state', ['enabled', ...KEPT], (each) => t(`state.${each}`)),
    one('doing', DOING, (each) => t(`doing.${each}`)), text('label'),
    textOf(filter) !== textOf(NO_FILTER) && button('filter-none', t('filter.none'), () => app.go('proxies')));
}

function actions(app, rows) {
  const isMore = page?.next !== null || cursors.length > 1;
  const act = (name, run, isDanger = false) =>
    button(name, t(name), () => run(app).then(() => after(app)), { class: isDanger && 'danger', disabled: chosen.size === 0 });
  const none = () => {
    chosen.clear();
    app.render();
  };
  return h('div', { class: 'actions', role: 'toolbar', 'aria-label': t('chosen') },
    h('span', { class: 'count', 'aria-live': 'polite', test: 'chosen' }, t('chosen.n', { n: chosen.size, count: number(chosen.size) })),
    act('enable', (its) => setState(its, 'enabled')), act('disable', (its) => setState(its, 'disabled')),
    act('start', start), act('delete', remove, true),
    rows.length > 0 && isMore && button('choose-all', t('chosen.all'), () => chooseAll(app)),
    chosen.size > 0 && button('choose-none', t('chosen.none'), none, { class: 'quiet' }));
}

// The button that was used is off now: the keyboard goes on from the list.
async function after(app) {
  await load(app);
  if (document.activeElement === document.body) document.getElementById('main').focus();
}

async function chooseAll(app) {
  try {
    await read(undefined, Infinity, filter.doing !== '', (reply) => {
      for (const row of reply.data) choose(row, reply.journal.seq);
      app.notify(t('chosen.reading', { n: number(chosen.size) }));
    });
  } catch (error) {
    app.notify(error.message, { isError: true });
  }
  app.render();
}

function table(app, rows) {
  const areAll = rows.every((row) => chosen.has(idOf(row)));
  const all = h('input', {
    type: 'checkbox', checked: areAll, 'aria-label': t('chosen.page'), test: 'choose-page',
    indeterminate: !areAll && rows.some((row) => chosen.has(idOf(row))),
    onchange: () => {
      for (const row of rows) areAll ? chosen.delete(idOf(row)) : choose(row, page.seq);
      app.render();
    },
  });
  const heads = [all, t('state'), t('filter.kind'), t('proxy'), t('url'), t('why'), t('label'), t('changed'), ''];
  return h('table', { class: 'proxies', 'aria-busy': isLoading ? 'true' : false, test: 'proxies' },
    h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head || h('span', { class: 'hidden' }, t('actions')))))),
    h('tbody', {}, rows.map((row) => tr(app, row))));
}

// What the server does of it, or else why it does nothing.
const doingOf = (row) => (row.state !== 'enabled' ? row.state : row.now?.state ?? (row.hours && !row.hours.open ? 'off_hours' : 'enabled'));

function tr(app, row) {
  const [id, doing] = [idOf(row), doingOf(row)];
  const label = (name) => !['box', 'do', 'kind'].includes(name) && t(name);
  const cell = (name, ...content) => h('td', { class: name, 'data-label': label(name) }, content);
  const url = row.in_use?.url ?? urlOf(row.args);
  const backups = row.args.journal_backup_urls?.length;
  const history = `#history?text=${encodeURIComponent(row.key)}`;
  const isChosen = chosen.has(id);
  const toggle = () => {
    isChosen ? chosen.delete(id) : choose(row, page.seq);
    app.render();
  };
  return h('tr', { 'data-id': id, class: isChosen ? 'is-chosen' : '', test: 'row' },
    cell('box', h('input', {
      type: 'checkbox', checked: isChosen, onchange: toggle, 'aria-label': t('choose', { key: row.key }), test: 'choose',
    })),
    cell('state', h('span', { class: `dot fill-${doing}` }), ' ',
      h('span', { test: 'doing' }, doing === 'enabled' ? t('state.enabled') : t(`doing.${doing}`))),
    cell('kind', t(`kind.${row.kind}`)),
    cell('proxy', h('bdi', { class: 'clip', test: 'key', title: row.key }, row.key)),
    cell('url', h('bdi', { class: 'clip', test: 'url', title: url }, url),
      row.in_use && h('p', { class: 'note', title: row.in_use.why }, t('url.backup', { ago: relative(row.in_use.since) })),
      !row.in_use && backups > 0 && h('p', { class: 'note' }, t('url.first', { n: backups }))),
    cell('why', why(row, doing)),
    cell('label', h('bdi', { class: 'clip' }, row.args.journal_label ?? '')),
    cell('changed', h('time', { title: time(row.updated_at) }, relative(row.updated_at))),
    cell('do',
      button('edit', t('edit'), () => edit(app, row).then((done) => done && load(app)), { 'aria-label': t('edit.key', { key: row.key }) }),
      h('a', { class: 'button', href: history, 'aria-label': t('history.key', { key: row.key }), test: 'row-history' },
        t('tab.history'))));
}

function why(row, doing) {
  if (doing === 'playing' || doing === 'enabled') return null;
  const { now = {} } = row;
  const opens = doing === 'off_hours' ? row.hours?.next_change_at : undefined;
  const tryAt = nextTry({ next_try_at: opens, ...now, state: doing });
  return [
    h('bdi', { class: 'clip', test: 'why', title: now.last_error || null }, now.last_error || t(`what.${doing}`)),
    (now.attempts > 0 || tryAt) && h('p', { class: 'note' },
      now.attempts > 0 && t('why.attempts', { n: number(now.attempts) }),
      tryAt && doing !== 'retrying' && t('why.next'), tryAt),
    now.url > 1 && h('p', { class: 'note' }, t('url.tried', { n: now.url })),
  ];
}

function pager(app) {
  if (!page) return null;
  const turn = (change) => () => {
    if (isLoading) return;
    change();
    load(app).then(() => document.getElementById('main').scrollIntoView());
  };
  return h('nav', { class: 'pager', 'aria-label': t('pages') },
    button('page-before', t('pages.before'), turn(() => cursors.pop()), { disabled: cursors.length === 1 }),
    h('span', { test: 'page' }, t('pages.which', { n: cursors.length })),
    button('page-after', t('pages.after'), turn(() => cursors.push(page.next)), { disabled: page.next === null }));
}
