// The proxies that are chosen in the list, and what can be done with all of them: each time what will change is shown
// first, and nothing is done if one of them has changed since it was seen.

import { Refused, call } from './api.js';
import { number } from './format.js';
import { review, urlOf } from './review.js';
import { undo } from './rollback.js';
import { t } from './text.js';

// Of one call.
export const MOST_ITEMS = 10_000;
// So many are read again one by one, more in a look at the whole list.
const FEW = 50;

// By kind/key: what was seen of the proxy, and as of which change.
export const chosen = new Map();

export const idOf = ({ kind, key }) => `${kind}/${key}`;

export function choose(row, seq) {
  const { kind, key, state, args } = row;
  // No more than is shown: there may be 100,000.
  chosen.set(idOf(row), { kind, key, state, args: { url: urlOf(args) }, seq });
}

const named = ({ kind, key }) => ({ kind, key });

function* pieces(items) {
  for (let at = 0; at < items.length; at += MOST_ITEMS) yield items.slice(at, at + MOST_ITEMS);
}

const fail = (failed) => new Error(t('done.failed', { n: failed.length, key: failed[0].key ?? '', why: failed[0].msg ?? '' }));

// One call for up to 10,000. Refused if one of them has changed since it was seen. Resolves to the change before.
async function inPieces(name, args, items, progress = () => {}) {
  let [done, before] = [0, undefined];
  const failed = [];
  for (const piece of pieces(items)) {
    const seq = Math.min(...piece.map((item) => item.seq));
    const reply = await call(name, { ...args, if_seq: seq }, piece.map(named), 600_000);
    before ??= reply.journal.seq;
    failed.push(...(reply.data.items ?? reply.data).filter((item) => item.code !== 0));
    done += piece.length;
    progress(t('done.of', { n: number(done), total: number(items.length) }));
  }
  if (failed.length) throw fail(failed);
  return before;
}

// After a conflict, what is chosen is read again; also if it was seen as of different changes, of which only the oldest
// could be given with a call.
async function readAgain(items) {
  const ids = new Set(items.map(idOf));
  const rows = [];
  const take = (reply) => {
    for (const row of reply.data) if (ids.has(idOf(row))) rows.push([row, reply.journal.seq]);
    return reply.next;
  };
  if (items.length <= FEW) {
    for (const { kind, key } of items) take(await call('listJournal', { kind, prefix: key, limit: 1 }));
  } else {
    for (let next; next !== null; ) next = take(await call('listJournal', { limit: MOST_ITEMS, after: next }));
  }
  chosen.clear();
  for (const [row, seq] of rows) choose(row, seq);
  return [...chosen.values()];
}

// A review of the chosen: `planOfItems` says what becomes of them, and `check`, where the API has a dry run, whether the
// server agrees, and which change an undo goes back to.
function reviewChosen(app, { title, verb, planOfItems, check, apply, isDanger, canStop }) {
  let items = [...chosen.values()];
  let looks = 0;
  const look = async () => {
    const isMixed = items.some(({ seq }) => seq !== items[0].seq);
    if (looks++ > 0 || (isMixed && check)) items = await readAgain(items);
    const plan = planOfItems(items);
    return { ...plan, seq: await check?.(plan) };
  };
  return review(app, { title, verb, isDanger, canStop, load: look, apply }).then((done) => {
    if (done) chosen.clear();
    return done;
  });
}

const nothing = { added: [], changed: [], removed: [], unchanged: 0 };

export function setState(app, state) {
  const becomes = (item) => ({ ...named(item), from: { state: item.state }, to: { state }, seq: item.seq });
  return reviewChosen(app, {
    title: t(`${state}.title`), verb: t(state === 'enabled' ? 'enable' : 'disable'),
    planOfItems: (items) => {
      const changed = items.filter((item) => item.state !== state).map(becomes);
      return { ...nothing, changed, unchanged: items.length - changed.length };
    },
    check: (plan) => inPieces('setJournalState', { state, dry_run: 1 }, plan.changed),
    apply: async (plan, progress) => {
      await inPieces('setJournalState', { state }, plan.changed, progress);
      return { text: t(`${state}.done`, { n: plan.changed.length, count: number(plan.changed.length) }), action: undo(app, plan.seq) };
    },
  });
}

export function remove(app) {
  return reviewChosen(app, {
    title: t('delete.title'), verb: t('delete'), isDanger: true,
    planOfItems: (items) => ({ ...nothing, removed: items.map((item) => ({ ...item, from: item })) }),
    check: (plan) => inPieces('delStreamProxies', { dry_run: 1 }, plan.removed),
    apply: async (plan, progress) => {
      await inPieces('delStreamProxies', {}, plan.removed, progress);
      return { text: t('delete.done', { n: plan.removed.length, count: number(plan.removed.length) }), action: undo(app, plan.seq) };
    },
  });
}

export function start(app) {
  const canStart = ({ state }) => state === 'enabled' || state === 'dormant';
  return reviewChosen(app, {
    title: t('start.title'), verb: t('start'), canStop: true,
    planOfItems: (items) => {
      const started = items.filter(canStart).map(named);
      const others = items.length - started.length;
      const cannot = others > 0 && t('start.cannot', { n: others, count: number(others) });
      return { ...nothing, started, notes: [t('start.note'), cannot].filter(Boolean) };
    },
    apply: async (plan, progress) => {
      const total = number(plan.started.length);
      let done = 0;
      const failed = [];
      for (const { key } of plan.started) {
        try {
          await call('restoreJournal', { key });
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          failed.push({ key, msg: error.message });
        }
        const goesOn = progress(t('done.of', { n: number(++done), total }));
        if (!goesOn && done < plan.started.length) throw new Error(t('start.stopped', { n: number(done - failed.length), total }));
      }
      if (failed.length) throw fail(failed);
      return { text: t('start.done', { n: done, count: number(done) }) };
    },
  });
}
