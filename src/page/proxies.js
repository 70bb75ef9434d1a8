// The list of proxies: a page of it at a time, what each does and why, and what can be done with those that are chosen.

import { call } from './api.js';
import { h } from './dom.js';
import { edit } from './editor.js';
import { number, relative, time } from './format.js';
import { nextTry } from './now.js';
import { review, textOf, urlOf } from './review.js';
import { undo } from './rollback.js';
import { t } from './text.js';

const ON_PAGE = 100;
// Of one call.
const MOST_ITEMS = 10_000;
// At least so long between two looks at the list, in milliseconds.
const PAUSE = 5000;
// After so long, the attempts and the times of the next ones are old.
const OLD = 15_000;

const KINDS = ['pull', 'push', 'ffmpeg'];
const REMOVES = { push: 'delStreamPusherProxy', ffmpeg: 'delFFmpegSource' };
const STATES = ['enabled', 'disabled', 'dormant', 'quarantined'];
const DOING = ['playing', 'connecting', 'retrying', 'waiting', 'down', 'blocked', 'off_hours'];
const NO_FILTER = { text: '', kind: '', state: '', doing: '', label: '' };

let filter = { ...NO_FILTER };
// Where each page up to the current one begins; the first begins at undefined.
let cursors = [undefined];
let page = null;
let problem = null;
let loads = 0;
let isLoading = false;
// By kind/key: what was seen of the proxy, and as of which change.
const chosen = new Map();
let shownOf = null;
let loadedAt = 0;

const idOf = ({ kind, key }) => `${kind}/${key}`;

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
    const loaded = await read(cursors.at(-1), ON_PAGE);
    // An answer to an earlier question is of no use.
    if (mine !== loads) return;
    [page, problem] = [loaded, null];
    for (const row of page.rows) {
      // What is shown now is what whoever decides has seen.
      if (chosen.has(idOf(row))) chosen.set(idOf(row), seen(row, page.seq));
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
async function read(after, limit, progress = () => {}) {
  const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value));
  const rows = [];
  let [next, seq] = [after, undefined];
  do {
    const most = Math.min(MOST_ITEMS, limit - rows.length);
    const reply = await call('listJournal', { ...given, live: 1, limit: most, after: next });
    rows.push(...(await completed(reply.data)));
    // The oldest answer says what was seen.
    seq ??= reply.journal.seq;
    next = reply.next;
    progress(rows.length);
  } while (next !== null && rows.length < limit);
  return { rows, next, seq };
}

// For a server whose list says nothing of what a proxy does, and has no filter for texts.
async function completed(rows) {
  if (!rows.some((row) => row.state === 'enabled') || rows.some((row) => row.now)) return rows;
  const { data } = await call('getJournalStatus', { limit: MOST_ITEMS });
  const troubles = new Map(data.now.proxies.map((trouble) => [idOf(trouble), trouble]));
  const texts = (row) => [row.key, ...Object.values(row.args).map(textOf)].join('\n').toLowerCase();
  return rows
    .map((row) => (row.state === 'enabled' ? { ...row, now: troubles.get(idOf(row)) ?? { state: 'playing' } } : row))
    .filter((row) => texts(row).includes(filter.text.toLowerCase()) && (!filter.doing || row.now?.state === filter.doing));
}

// The one call of this second, if the list may have changed. False: the status is asked instead.
export async function refresh(app) {
  const age = Date.now() - loadedAt;
  if (isLoading || !page || age < PAUSE || (age < OLD && !problem && signOf(app.status) === shownOf)) return false;
  await load(app);
  return problem === null;
}

const seen = (row, seq) => ({ kind: row.kind, key: row.key, state: row.state, args: row.args, seq });

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
      h('button', { class: 'main', onclick: () => edit(app, null).then((done) => done && load(app)), test: 'add' }, t('add'))),
    filters(app),
    actions(app, rows),
    problem && h('p', { class: 'problem', role: 'alert', dir: 'auto', test: 'list-error' }, problem),
    page === null ? h('p', { class: 'empty' }, t('wait')) : rows.length === 0 ? h('p', { class: 'empty', test: 'list-empty' }, t('list.empty')) : table(app, rows),
    pager(app));
}

function filters(app) {
  const text = (name) =>
    h('label', {}, t(`filter.${name}`), h('input', { type: 'search', value: filter[name], oninput: (event) => type(app, name, event.target.value), test: `filter-${name}` }));
  const one = (name, values, labelOf) =>
    h('label', {}, t(`filter.${name}`),
      h('select', { value: filter[name], onchange: (event) => set(app, name, event.target.value), test: `filter-${name}` },
        ['', ...values].map((each) => h('option', { value: each, selected: each === filter[name] }, each ? labelOf(each) : t('filter.all')))));
  return h('form', { class: 'filters', role: 'search', 'aria-label': t('filter'), onsubmit: (event) => event.preventDefault() },
    text('text'), one('kind', KINDS, (each) => t(`kind.${each}`)), one('state', STATES, (each) => t(`state.${each}`)),
    one('doing', DOING, (each) => t(`doing.${each}`)), text('label'),
    textOf(filter) !== textOf(NO_FILTER) && h('button', { type: 'button', onclick: () => app.go('proxies'), test: 'filter-none' }, t('filter.none')));
}

function actions(app, rows) {
  const isMore = page?.next !== null || cursors.length > 1;
  const act = (name, run, isDanger = false) =>
    h('button', { class: isDanger ? 'danger' : '', disabled: chosen.size === 0, onclick: () => run(app), test: name }, t(name));
  return h('div', { class: 'actions', role: 'toolbar', 'aria-label': t('chosen') },
    h('span', { class: 'count', 'aria-live': 'polite', test: 'chosen' }, t('chosen.n', { n: chosen.size, count: number(chosen.size) })),
    act('enable', (its) => setState(its, 'enabled')), act('disable', (its) => setState(its, 'disabled')),
    act('start', start), act('delete', remove, true),
    rows.length > 0 && isMore && h('button', { onclick: () => chooseAll(app), test: 'choose-all' }, t('chosen.all')),
    chosen.size > 0 && h('button', { class: 'quiet', onclick: () => { chosen.clear(); app.render(); }, test: 'choose-none' }, t('chosen.none')));
}

async function chooseAll(app) {
  try {
    const all = await read(undefined, Infinity, (n) => app.notify(t('chosen.reading', { n: number(n) })));
    for (const row of all.rows) chosen.set(idOf(row), seen(row, all.seq));
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
      for (const row of rows) areAll ? chosen.delete(idOf(row)) : chosen.set(idOf(row), seen(row, page.seq));
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
  const cell = (name, ...content) => h('td', { class: name, 'data-label': ['box', 'do', 'kind'].includes(name) ? false : t(name) }, content);
  const isChosen = chosen.has(id);
  const choose = () => {
    isChosen ? chosen.delete(id) : chosen.set(id, seen(row, page.seq));
    app.render();
  };
  return h('tr', { 'data-id': id, class: isChosen ? 'is-chosen' : '', test: 'row' },
    cell('box', h('input', { type: 'checkbox', checked: isChosen, onchange: choose, 'aria-label': t('choose', { key: row.key }), test: 'choose' })),
    cell('state', h('span', { class: `dot fill-${doing}` }), ' ', h('span', { test: 'doing' }, doing === 'enabled' ? t('state.enabled') : t(`doing.${doing}`))),
    cell('kind', t(`kind.${row.kind}`)),
    cell('proxy', h('bdi', { class: 'clip', test: 'key', title: row.key }, row.key)),
    cell('url', h('bdi', { class: 'clip', test: 'url', title: row.in_use?.url ?? urlOf(row.args) }, row.in_use?.url ?? urlOf(row.args)),
      row.in_use && h('p', { class: 'note', title: row.in_use.why }, t('url.backup', { ago: relative(row.in_use.since) })),
      !row.in_use && row.args.journal_backup_urls && h('p', { class: 'note' }, t('url.first', { n: row.args.journal_backup_urls.length }))),
    cell('why', why(row, doing)),
    cell('label', h('bdi', { class: 'clip' }, row.args.journal_label ?? '')),
    cell('changed', h('time', { title: time(row.updated_at) }, relative(row.updated_at))),
    cell('do', h('button', { onclick: () => edit(app, row).then((done) => done && load(app)), 'aria-label': t('edit.key', { key: row.key }), test: 'edit' }, t('edit')),
      h('a', { class: 'button', href: `#history?text=${encodeURIComponent(row.key)}`, 'aria-label': t('history.key', { key: row.key }), test: 'row-history' }, t('tab.history'))));
}

function why(row, doing) {
  if (doing === 'playing' || doing === 'enabled') return null;
  const { now = {} } = row;
  const opens = doing === 'off_hours' ? row.hours?.next_change_at : undefined;
  const tryAt = nextTry({ next_try_at: opens, ...now, state: doing });
  return [
    h('bdi', { class: 'clip', test: 'why', title: now.last_error || null }, now.last_error || t(`what.${doing}`)),
    (now.attempts > 0 || tryAt) && h('p', { class: 'note' }, now.attempts > 0 && t('why.attempts', { n: number(now.attempts) }), tryAt && doing !== 'retrying' && t('why.next'), tryAt),
    now.url > 1 && h('p', { class: 'note' }, t('url.tried', { n: now.url })),
  ];
}

function pager(app) {
  if (!page) return null;
  const turn = (change) => () => {
    change();
    load(app).then(() => document.getElementById('main').scrollIntoView());
  };
  return h('nav', { class: 'pager', 'aria-label': t('pages') },
    h('button', { disabled: cursors.length === 1, onclick: turn(() => cursors.pop()), test: 'page-before' }, t('pages.before')),
    h('span', { test: 'page' }, t('pages.which', { n: cursors.length })),
    h('button', { disabled: page.next === null, onclick: turn(() => cursors.push(page.next)), test: 'page-after' }, t('pages.after')));
}

const named = ({ kind, key }) => ({ kind, key });

function* pieces(items) {
  for (let at = 0; at < items.length; at += MOST_ITEMS) yield items.slice(at, at + MOST_ITEMS);
}

// One call for up to 10,000. Refused if one of them has changed since it was seen.
async function inPieces(name, args, items, progress) {
  let [done, reply] = [0, null];
  const failed = [];
  for (const piece of pieces(items)) {
    const seq = Math.min(...piece.map((item) => item.seq));
    reply = await call(name, { ...args, if_seq: seq }, piece.map(named), 600_000);
    const results = reply.data.items ?? reply.data;
    failed.push(...results.filter((item) => item.code !== 0));
    // For a server whose call knows pulls only.
    for (const [index, { kind, key }] of piece.entries()) {
      if (REMOVES[kind] && results[index].flag === false) await call(REMOVES[kind], { key });
    }
    done += piece.length;
    progress(t('done.of', { n: number(done), total: number(items.length) }));
  }
  if (failed.length) throw new Error(t('done.failed', { n: failed.length, key: failed[0].key ?? '', why: failed[0].msg ?? '' }));
  return reply;
}

const oldest = (items) => Math.min(...items.map((item) => item.seq));

// After a conflict, what is chosen is read again.
async function readAgain(items) {
  const wanted = new Map(items.map((item) => [idOf(item), item]));
  const fresh = [];
  for (const item of items.length > 50 ? [] : items) {
    const reply = await call('listJournal', { kind: item.kind, prefix: item.key, limit: 1 });
    if (reply.data[0]?.key === item.key) fresh.push(seen(reply.data[0], reply.journal.seq));
  }
  if (items.length > 50) {
    for (let next; next !== null; ) {
      const reply = await call('listJournal', { limit: MOST_ITEMS, after: next });
      fresh.push(...reply.data.filter((row) => wanted.has(idOf(row))).map((row) => seen(row, reply.journal.seq)));
      next = reply.next;
    }
  }
  return fresh;
}

// A review of the chosen: `planOfItems` says what becomes of them; they are read anew from the second look on.
function reviewChosen(app, { title, verb, planOfItems, apply, isDanger }) {
  let items = [...chosen.values()];
  let looks = 0;
  const load_ = async () => {
    if (looks++ > 0) items = await readAgain(items);
    return planOfItems(items);
  };
  return review(app, { title, verb, isDanger, load: load_, apply }).then((done) => {
    if (done) chosen.clear();
    load(app);
  });
}

const nothing = { added: [], changed: [], removed: [], unchanged: 0 };

function setState(app, state) {
  const becomes = (item) => ({ ...named(item), from: { state: item.state }, to: { state }, seq: item.seq });
  return reviewChosen(app, {
    title: t(`${state}.title`), verb: t(state === 'enabled' ? 'enable' : 'disable'),
    planOfItems: (items) => {
      const changed = items.filter((item) => item.state !== state).map(becomes);
      return { ...nothing, changed, unchanged: items.length - changed.length };
    },
    apply: async (plan, progress) => {
      await inPieces('setJournalState', { state }, plan.changed, progress);
      return { text: t(`${state}.done`, { n: plan.changed.length, count: number(plan.changed.length) }), action: undo(app, oldest(plan.changed)) };
    },
  });
}

function remove(app) {
  return reviewChosen(app, {
    title: t('delete.title'), verb: t('delete'), isDanger: true,
    planOfItems: (items) => ({ ...nothing, removed: items.map((item) => ({ ...item, from: item })) }),
    apply: async (plan, progress) => {
      await inPieces('delStreamProxies', {}, plan.removed, progress);
      return { text: t('delete.done', { n: plan.removed.length, count: number(plan.removed.length) }), action: undo(app, oldest(plan.removed)) };
    },
  });
}

function start(app) {
  const canStart = ({ state }) => state === 'enabled' || state === 'dormant';
  return reviewChosen(app, {
    title: t('start.title'), verb: t('start'),
    planOfItems: (items) => {
      const started = items.filter(canStart).map(named);
      const others = items.length - started.length;
      return { ...nothing, started, notes: [t('start.note'), ...(others ? [t('start.cannot', { n: others, count: number(others) })] : [])] };
    },
    apply: async (plan, progress) => {
      let done = 0;
      for (const { key } of plan.started) {
        await call('restoreJournal', { key });
        progress(t('done.of', { n: number(++done), total: number(plan.started.length) }));
      }
      return { text: t('start.done', { n: done, count: number(done) }) };
    },
  });
}
