// Numbers and times for the reader: in the language of the page, and in the time zone of the browser.

import { serverNow } from './api.js';
import { language, t } from './text.js';

const cache = new Map();

function formatter(Type, options) {
  const key = `${Type.name} ${language()} ${JSON.stringify(options)}`;
  if (!cache.has(key)) cache.set(key, new Type(language(), options));
  return cache.get(key);
}

export const number = (value) => formatter(Intl.NumberFormat, { maximumFractionDigits: 1 }).format(value ?? 0);

export const percent = (part, whole) => formatter(Intl.NumberFormat, { style: 'percent' }).format(whole ? part / whole : 0);

export const time = (ms) => formatter(Intl.DateTimeFormat, { dateStyle: 'medium', timeStyle: 'medium' }).format(ms);

export const clock = (ms) => formatter(Intl.DateTimeFormat, { timeStyle: 'medium' }).format(ms);

// With its day only if that is not plain.
export const soon = (ms) => (Math.abs(ms - serverNow()) < 43_200_000 ? clock(ms) : time(ms));

export const day = (ms) => formatter(Intl.DateTimeFormat, { dateStyle: 'full' }).format(ms);

export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

const STEPS = [['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1]];

// "3 minutes ago", "in 12 seconds", by the server's clock.
export function relative(ms) {
  const seconds = (ms - serverNow()) / 1000;
  const [unit, length] = STEPS.find(([, length]) => Math.abs(seconds) >= length) ?? STEPS.at(-1);
  return formatter(Intl.RelativeTimeFormat, { numeric: 'auto', style: 'short' }).format(Math.trunc(seconds / length), unit);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 10) return t('seconds', { n: number(seconds) });
  const whole = Math.round(seconds);
  if (whole < 60) return t('seconds', { n: whole });
  if (whole < 3600) return t('minutes', { m: Math.floor(whole / 60), s: whole % 60 });
  return t('hours', { h: Math.floor(whole / 3600), m: Math.floor((whole % 3600) / 60) });
}

// The value of an input of type datetime-local, and back.
export function localInput(ms) {
  const local = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19);
}

export function fromLocalInput(text) {
  if (!text) return undefined;
  const ms = new Date(text).getTime();
  // A year that is too large.
  if (!Number.isFinite(ms)) throw new Error(t('date.bad'));
  return ms;
}
