// What is going on at this moment: the restore, the fleet, and the condition of the journal, with what to do about it.

import { h, svg } from './dom.js';
import { duration, number, percent, relative, soon, time } from './format.js';
import { chip } from './review.js';
import { t } from './text.js';

// How many proxies that do not play are asked for.
export const shows = 20;

export function enter() {}

// In the order in which they are drawn and listed; the first are those of the server, the others those of the journal.
export const DOING = ['playing', 'connecting', 'waiting', 'retrying', 'down', 'blocked', 'off_hours'];
export const KEPT = ['dormant', 'disabled', 'quarantined'];

export function view(app) {
  const { status } = app;
  if (!status) return h('p', { class: 'empty', 'aria-busy': 'true' }, t('wait'));
  return h('div', { class: 'cards' }, restore(status.restore), fleet(status), condition(status), troubles(status.now.proxies));
}

const card = (name, title, ...content) =>
  h('section', { class: `card ${name}`, 'aria-labelledby': `card-${name}`, test: `card-${name}` },
    h('h2', { id: `card-${name}` }, title), content);

// A bar of parts side by side. The legend beside it says the same in words.
function bar(parts, total, label) {
  let x = 0;
  const rects = parts.map(([name, count]) => {
    const width = total ? (count / total) * 1000 : 0;
    const rect = svg('rect', { class: `fill-${name}`, x, y: 0, width, height: 16 });
    x += width;
    return rect;
  });
  return svg('svg', { class: 'bar', viewBox: '0 0 1000 16', preserveAspectRatio: 'none', role: 'img', 'aria-label': label }, rects);
}

const figure = (name, label, value) => h('div', { class: 'figure', test: `restore-${name}` }, h('dt', {}, label), h('dd', {}, value));

function restore(restore) {
  if (restore.phase !== 'running') {
    const text = restore.phase === 'done' && restore.total
      ? t('restore.done', {
        n: number(restore.total), live: number(restore.live), failing: number(restore.failing), time: duration(restore.seconds),
      })
      : t(`restore.${restore.phase === 'done' ? 'nothing' : restore.phase.replace(' ', '_')}`);
    return card('restore', t('restore'), h('p', { test: 'restore-result' }, text), restore.failing > 0 && origins(restore));
  }
  const { total, done, live, failing, connected, blocked, connecting, waiting } = restore;
  const other = Math.max(0, done - live - failing - connected - blocked);
  const parts = [['playing', live], ['other', other], ['connecting', connected], ['retrying', failing], ['blocked', blocked]];
  return card('restore', t('restore.running'),
    bar(parts, total, t('restore.bar', { done: number(done), total: number(total) })),
    h('dl', { class: 'figures' },
      figure('done', t('restore.answered'), `${number(done)} / ${number(total)} (${percent(done, total)})`),
      figure('live', t('doing.playing'), number(live)),
      figure('failing', t('restore.failing'), number(failing)),
      figure('connected', t('restore.silent'), number(connected)),
      figure('blocked', t('doing.blocked'), number(blocked)),
      figure('connecting', t('doing.connecting'), number(connecting)),
      figure('waiting', t('doing.waiting'), number(waiting)),
      figure('rate', t('restore.rate'), t('restore.perSecond', { n: number(restore.rate) })),
      figure('eta', t('restore.eta'), duration(restore.eta_sec))),
    origins(restore));
}

function origins({ worst_origins: worst }) {
  if (!worst.length) return null;
  const row = (origin) =>
    h('tr', {}, h('td', { dir: 'auto' }, origin.host), h('td', { class: 'num' }, `${number(origin.failing)} / ${number(origin.total)}`),
      h('td', { class: 'why', dir: 'auto' }, origin.last_error));
  return [
    h('h3', {}, t('restore.worst')),
    table('origins', [t('host'), t('restore.failing'), t('lastError')], worst.map(row)),
  ];
}

const table = (name, heads, rows) =>
  h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': t(`table.${name}`) },
    h('table', { test: name }, h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))), h('tbody', {}, rows)));

const RADIUS = 42;
const ROUND = 2 * Math.PI * RADIUS;

function donut(parts, total, center) {
  let before = 0;
  const arcs = parts.filter(([, count]) => count > 0).map(([name, count]) => {
    const length = (count / total) * ROUND;
    const arc = svg('circle', {
      class: `stroke-${name}`, cx: 60, cy: 60, r: RADIUS, fill: 'none', 'stroke-width': 15,
      'stroke-dasharray': `${length} ${ROUND - length}`, 'stroke-dashoffset': -before, transform: 'rotate(-90 60 60)',
    });
    before += length;
    return arc;
  });
  return svg('svg', { class: 'donut', viewBox: '0 0 120 120', role: 'img', 'aria-label': t('fleet.chart', center) },
    svg('circle', { class: 'stroke-none', cx: 60, cy: 60, r: RADIUS, fill: 'none', 'stroke-width': 15 }), arcs,
    svg('text', { x: 60, y: 61, 'text-anchor': 'middle', class: 'big' }, center.playing),
    svg('text', { x: 60, y: 76, 'text-anchor': 'middle', class: 'small' }, t('fleet.of', center)));
}

function fleet({ now, proxies }) {
  const parts = [...DOING.map((name) => [name, now[name] ?? 0]), ...KEPT.map((name) => [name, proxies[name] ?? 0])];
  const total = parts.reduce((sum, [, count]) => sum + count, 0);
  const entry = ([name, count]) => {
    const isDoing = DOING.includes(name);
    const query = isDoing ? `doing=${name}` : `state=${name}`;
    return h('li', { class: count ? '' : 'none' },
      h('a', { href: `#proxies?${query}`, title: t(`what.${name}`), test: `fleet-${name}` },
        h('span', { class: `dot fill-${name}` }), h('span', {}, t(`doing.${name}`)), h('b', {}, number(count))));
  };
  const notes = [
    now.on_backup > 0 && t('fleet.onBackup', { n: number(now.on_backup) }),
    now.revived > 0 && t('fleet.revived', { n: number(now.revived) }),
    now.given_up > 0 && t('fleet.givenUp', { n: number(now.given_up) }),
  ].filter(Boolean);
  return card('fleet', t('fleet'),
    total === 0 && h('p', { class: 'empty' }, t('fleet.empty'), ' ', h('a', { href: '#transfer' }, t('fleet.import'))),
    total > 0 && h('div', { class: 'parts' },
      donut(parts, total, { playing: number(now.playing), total: number(total) }),
      h('ul', { class: 'legend' }, parts.map(entry))),
    notes.map((note) => h('p', { class: 'note' }, note)));
}

function condition(status) {
  const isWell = status.state === 'ok';
  const lag = status.seq - status.durable_seq;
  const behind = status.seq - (status.snapshot?.seq ?? 0);
  const { snapshot, last_error: error, watched_file: file, alerts } = status;
  const row = (name, label, level, ...text) =>
    h('div', { class: `row ${level}`, test: `condition-${name}` }, h('dt', {}, label), h('dd', {}, text));
  return card('condition', t('condition'), h('dl', { class: 'rows' },
    row('storage', t('storage'), isWell ? 'good' : 'bad',
      t(`storage.${status.state}`), !isWell && todo(t(`storage.${status.state}.do`))),
    row('disk', t('disk'), lag > 0 ? 'some' : 'good', lag > 0
      ? t('disk.lag', { n: number(lag), queue: number(status.queue.depth) })
      : t('disk.all', { seq: number(status.durable_seq) })),
    row('durability', t('durability'), 'good', t(`durability.${status.durability}`)),
    row('snapshot', t('snapshot'), snapshot ? 'good' : 'some',
      snapshot
        ? t('snapshot.last', { ago: relative(snapshot.at), time: time(snapshot.at), seq: number(snapshot.seq) })
        : t('snapshot.none'),
      snapshot && todo(behind > 0 ? t('snapshot.behind', { n: number(behind) }) : t('snapshot.complete'))),
    row('encrypted', t('passwords'), 'good', t(status.encrypted ? 'passwords.encrypted' : 'passwords.plain')),
    row('error', t('lastError'), error ? (isWell ? 'some' : 'bad') : 'good',
      error ? h('span', { dir: 'auto' }, error.message) : t('error.none'),
      error && todo(isWell ? `${time(error.at)} · ${t('error.over')}` : time(error.at))),
    status.settings_errors.length > 0 &&
      row('settings', t('settings'), 'bad',
        h('ul', {}, status.settings_errors.map((text) => h('li', { dir: 'auto' }, text))), todo(t('settings.do'))),
    file && row('file', t('file'), file.error ? 'bad' : 'good',
      h('span', { dir: 'auto' }, file.error || t('file.ok')), file.error && todo(t('file.do'))),
    alerts && row('alerts', t('alerts'), alerts.dropped > 0 ? 'some' : 'good', t('alerts.counts', alerts)),
    row('place', t('place'), 'good', h('code', { dir: 'auto' }, status.file))));
}

const todo = (text) => text && h('p', { class: 'todo' }, text);

function troubles(proxies) {
  if (!proxies.length) return null;
  const row = (proxy) =>
    h('tr', { 'data-id': `${proxy.kind}/${proxy.key}` },
      h('td', {}, h('span', { class: `dot fill-${proxy.state}` }), ' ', t(`doing.${proxy.state}`)),
      h('td', { class: 'key' },
        h('a', { href: `#proxies?text=${encodeURIComponent(proxy.key)}` }, h('bdi', {}, proxy.key)), ' ', chip(proxy.kind)),
      h('td', { class: 'why', dir: 'auto' }, proxy.last_error || t(`what.${proxy.state}`)),
      h('td', { class: 'num' }, proxy.attempts ? number(proxy.attempts) : ''),
      h('td', {}, nextTry(proxy)));
  return card('troubles', t('troubles'),
    table('troubles', [t('state'), t('proxy'), t('why'), t('attempts'), t('nextTry')], proxies.map(row)));
}

export function nextTry(proxy) {
  const { next_try_at: at, state } = proxy;
  if (at) return h('time', { title: time(at) }, `${soon(at)} (${relative(at)})`);
  return state === 'retrying' ? t('nextTry.server') : '';
}
