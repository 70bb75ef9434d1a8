// Who changed what, when and why, as a timeline; and going back to any moment of it.

import { call } from './api.js';
import { button, h, select } from './dom.js';
import { clock, day, fromLocalInput, localInput, number, time } from './format.js';
import { KINDS, chip, textOf, urlOf } from './review.js';
import { rollBack } from './rollback.js';
import { t } from './text.js';

const ON_PAGE = 100;
const PAUSE = 5000;
// What takes long is read anew more seldom: after so many times as long as it took.
const SHARE = 20;
const NO_FILTER = { text: '', kind: '', since: '', until: '' };

let filter = { ...NO_FILTER };
let events = null;
let next = null;
let problem = null;
let snapshots = [];
// The newest snapshot when they were listed; undefined before.
let snapshotOf;
let moment = '';
let isLoading = false;
let loads = 0;
let loadedAt = 0;
let seqOf = null;
// More than the newest page is shown: it stays as it is until asked for anew.
let hasOlder = false;
let gap = PAUSE;

export function enter(app) {
  const text = app.query.text ?? filter.text;
  if (events && text === filter.text) return;
  filter = { ...filter, text };
  load(app);
}

// One call's changes are one event; a very long one goes on on the next page.
function joined(before, rows) {
  const [last, [first, ...rest]] = [before.at(-1), rows];
  const isOne = last?.more && first && last.at === first.at && last.origin === first.origin && last.reason === first.reason;
  if (!isOne) return [...before, ...rows];
  const ops = { ...last.ops };
  for (const [op, n] of Object.entries(first.ops)) ops[op] = (ops[op] ?? 0) + n;
  return [...before.slice(0, -1), { ...last, ops, first_seq: first.first_seq, count: last.count + first.count, more: first.more }, ...rest];
}

async function load(app, before = undefined) {
  const mine = ++loads;
  const began = Date.now();
  isLoading = true;
  app.render();
  try {
    const { text, kind, since, until } = filter;
    const [from, to] = [fromLocalInput(since), fromLocalInput(until)];
    const args = { limit: ON_PAGE, group: 1, text: text || null, kind: kind || null, since: from, until: to, before };
    const reply = await call('getJournalHistory', args);
    if (mine !== loads) return;
    events = joined(before === undefined ? [] : events, reply.data);
    hasOlder = before !== undefined;
    [next, problem] = [reply.next, null];
  } catch (error) {
    if (mine !== loads) return;
    problem = error.message;
  } finally {
    if (mine === loads) {
      isLoading = false;
      loadedAt = Date.now();
      gap = Math.max(PAUSE, SHARE * (loadedAt - began));
      seqOf = app.status?.durable_seq ?? null;
    }
    app.render();
  }
}

// The one call of this second. False: the status is asked instead.
export async function refresh(app) {
  const newest = app.status?.snapshot?.seq;
  if (newest !== snapshotOf) {
    snapshots = (await call('listJournalSnapshots')).data;
    snapshotOf = newest;
    return true;
  }
  const isNews = problem !== null || (app.status && app.status.durable_seq !== seqOf);
  if (!isNews || isLoading || hasOlder || Date.now() - loadedAt < gap) return false;
  await load(app);
  return problem === null;
}

let typing = null;

function set(app, name, value, pause = 0) {
  filter = { ...filter, [name]: value };
  clearTimeout(typing);
  typing = setTimeout(() => load(app), pause);
}

export function view(app) {
  return h('div', { class: 'history' },
    h('h2', {}, t('tab.history')),
    filters(app), goBack(app),
    problem && h('p', { class: 'problem', role: 'alert', dir: 'auto' }, problem),
    events === null && h('p', { class: 'empty' }, t('wait')),
    events?.length === 0 && h('p', { class: 'empty', test: 'history-empty' }, t('history.empty')),
    events?.length > 0 && timeline(app),
    next !== null && button('older', t('history.older'), () => load(app, next), { class: 'older', disabled: isLoading }));
}

function filters(app) {
  const field = (name, type, pause) =>
    h('label', {}, t(`filter.${name === 'text' ? 'historyText' : name}`),
      h('input', {
        type, step: type === 'datetime-local' && 1, value: filter[name], test: `history-${name}`,
        oninput: (event) => set(app, name, event.target.value, pause),
      }));
  const clear = () => {
    filter = { ...NO_FILTER };
    app.go('history');
    load(app);
  };
  return h('form', { class: 'filters', role: 'search', 'aria-label': t('filter'), onsubmit: (event) => event.preventDefault() },
    field('text', 'search', 250),
    h('label', {}, t('filter.kind'),
      select({ value: filter.kind, onchange: (event) => set(app, 'kind', event.target.value), test: 'history-kind' },
        ['', ...KINDS], (each) => (each ? t(`kind.${each}`) : t('filter.all')))),
    field('since', 'datetime-local', 500), field('until', 'datetime-local', 500),
    textOf(filter) !== textOf(NO_FILTER) && button('history-none', t('filter.none'), clear));
}

function goBack(app) {
  const pick = (event) => {
    event.preventDefault();
    try {
      const ms = fromLocalInput(moment);
      if (ms !== undefined) rollBack(app, { to_time: ms }).then((done) => done && load(app));
    } catch (error) {
      app.notify(error.message, { isError: true });
    }
  };
  const pickSnapshot = (event) => {
    const { value } = event.target;
    event.target.value = '';
    if (value) rollBack(app, { to_snapshot: Number(value) }).then((done) => done && load(app));
  };
  return h('form', { class: 'filters', 'aria-label': t('rollback'), onsubmit: pick },
    h('label', {}, t('rollback.moment'),
      h('input', {
        type: 'datetime-local', step: 1, value: moment, max: localInput(Date.now()), test: 'moment',
        oninput: (event) => (moment = event.target.value),
      })),
    h('button', { test: 'to-moment' }, t('rollback.show')),
    snapshots.length > 0 && h('label', {}, t('rollback.snapshots'),
      h('select', { value: '', onchange: pickSnapshot, test: 'snapshots' }, h('option', { value: '' }, t('rollback.choose')),
        snapshots.map(({ seq, at }) => h('option', { value: seq }, `${time(at)} · ${t('seq', { seq: number(seq) })}`)))));
}

function timeline(app) {
  const nodes = [];
  let last = null;
  for (const event of events) {
    const its = day(event.at);
    if (its !== last) nodes.push(h('li', { class: 'day', 'data-id': `day ${its}` }, h('h3', {}, its)));
    last = its;
    nodes.push(eventView(app, event));
  }
  return h('ol', { class: 'timeline', 'aria-busy': isLoading ? 'true' : false, test: 'timeline' }, nodes);
}

function eventView(app, event) {
  const { seq, first_seq: first, at, origin, reason, count, more, ops, items } = event;
  // With a filter, others of the same call may lie before and after: then its moment counts.
  const isWhole = !filter.text && !filter.kind;
  const main = Object.entries(ops).sort((a, b) => b[1] - a[1])[0][0];
  const back = (moment) => rollBack(app, moment).then((done) => done && load(app));
  const one = (item) =>
    h('li', { class: 'line' },
      count > 1 && h('span', { class: 'op' }, t(`op.${item.op}`), ' '),
      h('bdi', { class: 'name' }, item.key), ' ', chip(item.kind),
      item.args && h('div', { class: 'field' }, h('bdi', {}, urlOf(item.args))));
  const summary = Object.entries(ops).map(([op, n]) => t('op.count', { op: t(`op.${op}`), n: number(n) })).join(t('comma'));
  return h('li', { class: `event op-${main}`, 'data-id': seq, test: 'event' },
    h('div', { class: 'when' }, h('time', { title: time(at) }, clock(at)), h('span', { class: 'seq' }, t('seq', { seq: number(seq) }))),
    h('div', { class: 'what' },
      h('p', {},
        h('b', {}, count > 1 ? summary : t(`op.${main}`)), ' · ',
        h('bdi', { test: 'reason' }, reason), ' · ',
        h('span', { class: 'who' }, t('history.by'), ' ',
          h('bdi', {}, origin === 'zlm-journal' ? t('history.itself') : origin))),
      count > 1
        ? h('details', {}, h('summary', {}, t('history.items', { n: count, count: number(count) })),
          h('ul', { class: 'lines' }, items.map(one)),
          count > items.length && h('p', { class: 'note' }, t('review.more', { n: number(count - items.length) })))
        : h('ul', { class: 'lines' }, items.map(one))),
    h('div', { class: 'do' },
      button('back-to', t('rollback.to'), () => back(isWhole ? { to_seq: seq } : { to_time: at }),
        { 'aria-label': t('rollback.after', { seq: number(seq) }) }),
      !more && button('back-before', t('rollback.undo'), () => back(isWhole ? { to_seq: first - 1 } : { to_time: at - 1 }),
        { class: 'quiet', 'aria-label': t('rollback.before', { seq: number(first) }) })));
}
