// Shows what a change will do before it is done, and does it. Everything that changes something goes through here.

import { button, h, openDialog } from './dom.js';
import { number } from './format.js';
import { t } from './text.js';

export const KINDS = ['pull', 'push', 'ffmpeg'];

export const chip = (kind) => h('span', { class: 'chip' }, t(`kind.${kind}`));

const MOST_LINES = 200;

export const textOf = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

// Where a proxy gets its stream from, or sends it to.
export const urlOf = (args = {}) => args.url ?? args.src_url ?? args.dst_url ?? '';

// The fields in which two of `{ state, args }` differ, as [name, before, after]; undefined where one has no such field.
export function differences(from = {}, to = {}) {
  const fields = ({ state, args }) => ({ ...args, ...(state && { state }) });
  const [before, after] = [fields(from), fields(to)];
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((name) => textOf(before[name]) !== textOf(after[name]))
    .map((name) => [name, before[name], after[name]]);
}

// A plan of the reply of a dry run: of syncJournal, importJournal or rollbackJournal.
export function planOf(reply, kind) {
  const { data } = reply;
  const item = (each) => (typeof each === 'string' ? { kind, key: each } : each);
  const inPlace = new Set(data.in_place.map((each) => item(each).key));
  return {
    added: data.added.map(item),
    changed: data.updated.map(item).map((each) => ({ ...each, isInPlace: inPlace.has(each.key) })),
    removed: data.removed.map(item),
    unchanged: data.unchanged,
    seq: reply.journal?.seq ?? data.before,
  };
}

const SIGNS = { added: '+', changed: '~', removed: '−', started: '▸' };

export const isEmpty = (plan) => Object.keys(SIGNS).every((name) => !plan[name]?.length);

function value(name, text) {
  if (text === undefined) return h('i', {}, t('review.nothing'));
  return h('bdi', {}, name === 'state' ? t(`state.${text}`) : textOf(text));
}

function line(name, item) {
  const { kind, key, from, to, isInPlace } = item;
  const fields = name === 'changed' ? differences(from, to) : [];
  const url = name === 'changed' ? '' : urlOf((to ?? from)?.args);
  return h('li', { class: `line is-${name}` },
    h('span', { class: 'sign', 'aria-hidden': 'true' }, SIGNS[name]), ' ',
    h('bdi', { class: 'name' }, key), ' ', chip(kind),
    isInPlace && h('span', { class: 'chip' }, t('change.in_place')),
    url && h('div', { class: 'field' }, h('bdi', {}, url)),
    name === 'changed' && from && to && !fields.length && h('div', { class: 'field' }, t('review.hidden')),
    fields.map(([field, before, after]) =>
      h('div', { class: 'field' },
        h('code', {}, field), ' ', h('del', {}, value(field, before)), ' → ', h('ins', {}, value(field, after)))));
}

function section(name, items = []) {
  if (!items.length) return null;
  return h('section', { test: `review-${name}` },
    h('h3', {}, t(`review.${name}`, { n: items.length, count: number(items.length) })),
    h('ul', { class: 'lines' }, items.slice(0, MOST_LINES).map((item) => line(name, item))),
    items.length > MOST_LINES && h('p', { class: 'note' }, t('review.more', { n: number(items.length - MOST_LINES) })));
}

export function planView(plan) {
  return [
    (plan.notes ?? []).map((note) => h('p', { class: 'note' }, note)),
    isEmpty(plan) && h('p', { class: 'empty', test: 'review-empty' }, t('review.empty')),
    Object.keys(SIGNS).map((name) => section(name, plan[name])),
    plan.unchanged > 0 && h('p', { class: 'note' }, t('review.unchanged', { n: plan.unchanged, count: number(plan.unchanged) })),
  ];
}

// `load` gives the plan, `apply(plan, progress)` carries it out and resolves to what is said then: { text, action }. With
// `canStop`, `progress` returns false once it should not go on.
export function review(app, { title, verb, load, apply, isDanger = false, canStop = false }) {
  return new Promise((resolve) => {
    let [plan, error, isConflict, busy] = [null, null, false, t('wait')];
    let [result, isStopped, isApplying] = [false, false, false];
    let running = null;
    const element = () => dialog.element;

    async function run(text, work) {
      [busy, error, isConflict] = [text, null, false];
      dialog.isBusy = true;
      dialog.render();
      try {
        await work();
      } catch (problem) {
        [error, isConflict] = [problem.message, problem.isConflict === true];
      }
      busy = null;
      dialog.isBusy = false;
      dialog.render();
      // A button that was off for a while has lost the focus.
      if (!element().contains(document.activeElement)) element().querySelector('button:enabled')?.focus();
    }

    const look = () => (running = run(t('wait'), async () => (plan = await load())));
    const progress = (text) => {
      busy = text;
      dialog.render();
      return !isStopped;
    };
    const carryOut = async () => {
      const { text, action } = (await apply(plan, progress)) ?? {};
      result = true;
      dialog.close();
      if (text) app.notify(text, { action });
    };
    const confirm = () => {
      [isStopped, isApplying] = [false, true];
      running = run(t('review.doing'), carryOut).finally(() => (isApplying = false));
    };
    const cancel = () => (isApplying ? (isStopped = true) : dialog.close());

    const view = () =>
      h('div', { class: 'review' },
        h('h2', { id: 'review-title' }, title),
        h('div', { class: 'scroll tall', tabindex: 0, role: 'region', 'aria-label': t('review.what') }, plan && planView(plan)),
        busy && h('p', { role: 'status', class: 'busy' }, h('progress', { 'aria-label': busy }), ' ', busy),
        h('div', { role: 'alert', test: 'review-error' },
          isConflict && h('p', { class: 'problem', test: 'conflict' }, t('review.conflict')),
          error && h('p', { class: 'problem', dir: 'auto' }, error)),
        h('div', { class: 'buttons' },
          button('cancel', t('cancel'), cancel, { disabled: busy !== null && !(canStop && isApplying) }),
          error && button('look-again', t('review.again'), look, { disabled: busy !== null }),
          button('confirm', verb, confirm, {
            class: isDanger ? 'main danger' : 'main',
            disabled: busy !== null || !plan || isEmpty(plan) || isConflict,
          })));
    const dialog = openDialog('review', view);
    // A browser closes it all the same if Escape is pressed twice: what was begun ends, and says how.
    dialog.onclose = async () => {
      const isEarly = dialog.isBusy;
      isStopped = true;
      await running;
      if (isEarly && error) app.notify(error, { isError: true });
      resolve(result);
    };
    look();
  });
}
