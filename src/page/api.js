// Calls of the server. The secret is never in a URL or in the browser's storage: it is turned into the digest of
// MediaServer's login or, where a server has no login, kept in this variable and sent as a header.

import { md5 } from './md5.js';
import { t } from './text.js';

let secret = null;
// As far as is known: release 8.0 has none.
let hasLogin = true;
// How far the server's clock is ahead of this one, in milliseconds.
let ahead = 0;
let signInAgain = async () => {};

export const serverNow = () => Date.now() + ahead;

// What `call` waits for when the server does not know us; set once, by the page.
export const onSignInNeeded = (handler) => (signInAgain = handler);

// Without a login or a secret, or with a wrong one; release 8.0 says so in another way.
const isStranger = ({ code, msg }) => code === -100 || (code === -300 && /^Required parameter missed: "secret"/.test(msg));

// The server has answered, and refused.
export class Refused extends Error {
  constructor(reply) {
    super(reply.msg || `code ${reply.code}`);
    this.reply = reply;
    this.isConflict = reply.conflict === true;
    this.needsSignIn = isStranger(reply);
  }
}

// The server has not answered.
export class Gone extends Error {
  constructor(why) {
    super(t('gone.call', { why }));
  }
}

const queryOf = (args) =>
  Object.entries(args)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join('&');

async function send(path, type, body, patience) {
  // Other sites cannot send this header: a cookie counts only with it.
  const headers = { 'Content-Type': type, 'X-Journal': '1' };
  // Header values are bytes; a secret beyond Latin-1 is sent as UTF-8, as it is in config.ini.
  if (secret !== null) headers.secret = String.fromCharCode(...new TextEncoder().encode(secret));
  let reply;
  let text;
  try {
    // Beside the page, wherever a reverse proxy has put it.
    reply = await fetch(`../index/api/${path}`, { method: 'POST', headers, body, signal: AbortSignal.timeout(patience) });
    text = await reply.text();
  } catch (error) {
    throw new Gone(error.message);
  }
  const skew = Date.parse(reply.headers.get('date') ?? '') - Date.now();
  ahead = Math.abs(skew) > 2000 ? skew : 0;
  try {
    return JSON.parse(text);
  } catch {
    throw new Gone(`HTTP ${reply.status}`);
  }
}

// Arguments without a value are not sent. With a `body` (items, or the text of a file) they go into the URL, as the
// journal's API asks for; otherwise they are the body.
async function once(name, args, body, patience) {
  const given = Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined && value !== null));
  const query = queryOf(given);
  if (body === undefined) return send(name, 'application/json', JSON.stringify(given), patience);
  const isText = typeof body === 'string' && !/^\s*[[{]/.test(body);
  const content = typeof body === 'string' ? body : JSON.stringify(body);
  const path = query ? `${name}?${query}` : name;
  return send(path, isText ? 'text/plain; charset=utf-8' : 'application/json', content, patience);
}

// Resolves to the whole reply, or throws Refused or Gone. If the login has ended, it waits for the next and tries again.
export async function call(name, args = {}, body = undefined, patience = 60_000) {
  for (;;) {
    const reply = await once(name, args, body, patience);
    if (reply.code === 0) return reply;
    if (!isStranger(reply)) throw new Refused(reply);
    await signInAgain(reply);
  }
}

const ask = () => once('getJournalStatus', { limit: 0 }, undefined, 20_000);

export async function isSignedIn() {
  const reply = await ask();
  hasLogin = reply.code !== -300;
  return !isStranger(reply);
}

// Whether the secret goes with each call, as a header.
export const sendsSecret = () => !hasLogin;

// The server's cookie, such that the calls of other sites are without it.
function setLogin(value, seconds) {
  const secure = location.protocol === 'https:' ? '; Secure' : '';
  document.cookie = `ZLM_LOGINED=${value}; path=/; max-age=${seconds}; SameSite=Strict${secure}`;
}

export async function signIn(given) {
  secret = null;
  const challenge = await ask();
  if (!isStranger(challenge)) return;
  if (challenge.cookie) {
    const digest = md5(`zlmediakit:${given}:${challenge.cookie}`);
    const reply = await send('login', 'application/x-www-form-urlencoded', queryOf({ digest }), 20_000);
    if (reply.code !== 0) throw new Refused(reply);
    const [, login] = document.cookie.match(/(?:^|; )ZLM_LOGINED=([^;]+)/) ?? [];
    // As long as the server keeps it.
    if (login) setLogin(login, 86_400);
    if (await isSignedIn()) return;
  }
  // No login in this release, or the browser keeps no cookie.
  secret = given;
  const reply = await ask();
  if (reply.code === 0) return;
  secret = null;
  throw new Refused(reply);
}

export async function signOut() {
  // With a login there is something to end on the server.
  if (secret === null) {
    await send('logout', 'application/json', '{}', 20_000);
    // The server forgets it, and leaves it to the browser.
    setLogin('', 0);
  }
  secret = null;
}
