// What every script finds in its global scope, built on the few functions that the host lends (`host.rs`).
// Evaluated once per call, before the script. Text is all that crosses the border, bytes aside.
(function (host) {
  'use strict';
  const { parse, stringify } = JSON;

  const shown = (value) => {
    if (typeof value === 'string') return value;
    if (value instanceof Error) return `${value}\n${value.stack ?? ''}`.trimEnd();
    try {
      return stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  const logger = (...values) => host.log(values.map(shown).join(' '));
  globalThis.console = { log: logger, info: logger, warn: logger, error: logger, debug: logger };

  const raw = (value) => {
    if (typeof value === 'string' || value instanceof Uint8Array) return value;
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    throw new TypeError('expected a string or bytes');
  };
  const joined = (digest) => {
    const chunks = [];
    return {
      update(data) {
        const chunk = raw(data);
        chunks.push(typeof chunk === 'string' ? host.encode(chunk) : chunk);
        return this;
      },
      digest(encoding) {
        const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
        let at = 0;
        for (const chunk of chunks) {
          all.set(chunk, at);
          at += chunk.length;
        }
        return digest(all, encoding);
      },
    };
  };
  const hash = (algorithm, data, encoding) => host.hash(String(algorithm), raw(data), String(encoding ?? 'bytes'));
  const hmac = (algorithm, key, data, encoding) =>
    host.hmac(String(algorithm), raw(key), raw(data), String(encoding ?? 'bytes'));
  globalThis.crypto = {
    hash: (algorithm, data, encoding = 'hex') => hash(algorithm, data, encoding),
    hmac: (algorithm, key, data, encoding = 'hex') => hmac(algorithm, key, data, encoding),
    timingSafeEqual: (a, b) => host.equal(raw(a), raw(b)),
    createHash: (algorithm) => joined((data, encoding) => hash(algorithm, data, encoding)),
    createHmac: (algorithm, key) => joined((data, encoding) => hmac(algorithm, key, data, encoding)),
  };
  globalThis.xml = Object.freeze({ parse: (text) => parse(host.xmlParse(String(text))) });
  globalThis.atob = (text) => host.atob(String(text));
  globalThis.btoa = (text) => host.btoa(String(text));
  globalThis.TextEncoder = class TextEncoder {
    get encoding() {
      return 'utf-8';
    }
    encode(text = '') {
      return host.encode(String(text));
    }
  };
  globalThis.TextDecoder = class TextDecoder {
    get encoding() {
      return 'utf-8';
    }
    decode(bytes = new Uint8Array(0)) {
      return host.decode(raw(bytes));
    }
  };

  const pairs = (value) => {
    if (value === undefined || value === null) return [];
    if (value instanceof URLSearchParams) return [...value];
    if (typeof value === 'string') return parse(host.formParse(value));
    const list = typeof value[Symbol.iterator] === 'function' ? [...value] : Object.entries(value);
    return list.flatMap(([name, entry]) =>
      (Array.isArray(entry) ? entry : [entry])
        .filter((one) => one !== undefined && one !== null)
        .map((one) => [String(name), String(one)]),
    );
  };
  const changed = new WeakMap();
  class URLSearchParams {
    #list;
    constructor(init) {
      this.#list = pairs(typeof init === 'string' ? init.replace(/^\?/, '') : init);
    }
    #done() {
      changed.get(this)?.(this.toString());
    }
    append(name, value) {
      this.#list.push([String(name), String(value)]);
      this.#done();
    }
    delete(name) {
      this.#list = this.#list.filter(([key]) => key !== String(name));
      this.#done();
    }
    get(name) {
      return this.#list.find(([key]) => key === String(name))?.[1] ?? null;
    }
    getAll(name) {
      return this.#list.filter(([key]) => key === String(name)).map(([, value]) => value);
    }
    has(name) {
      return this.#list.some(([key]) => key === String(name));
    }
    set(name, value) {
      const at = this.#list.findIndex(([key]) => key === String(name));
      if (at < 0) return this.append(name, value);
      this.#list = this.#list.filter(([key], i) => i <= at || key !== String(name));
      this.#list[at] = [String(name), String(value)];
      this.#done();
    }
    sort() {
      this.#list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      this.#done();
    }
    forEach(each) {
      for (const [name, value] of this.#list) each(value, name, this);
    }
    entries() {
      return this.#list.map(([name, value]) => [name, value]).values();
    }
    keys() {
      return this.#list.map(([name]) => name).values();
    }
    values() {
      return this.#list.map(([, value]) => value).values();
    }
    get size() {
      return this.#list.length;
    }
    [Symbol.iterator]() {
      return this.entries();
    }
    toString() {
      return host.formText(stringify(this.#list));
    }
  }
  globalThis.URLSearchParams = URLSearchParams;

  class URL {
    #parts;
    #params;
    constructor(href, base) {
      this.#parts = parse(host.urlParse(String(href), base === undefined ? null : String(base)));
    }
    static canParse(href, base) {
      try {
        return Boolean(new URL(href, base));
      } catch {
        return false;
      }
    }
    get searchParams() {
      if (!this.#params) {
        this.#params = new URLSearchParams(this.#parts.search);
        changed.set(this.#params, (text) => this.#change('search', text));
      }
      return this.#params;
    }
    #change(part, value) {
      this.#parts = parse(host.urlSet(this.#parts.href, part, value));
    }
    toString() {
      return this.#parts.href;
    }
    toJSON() {
      return this.#parts.href;
    }
    static {
      const names = 'href protocol username password host hostname port pathname search hash'.split(' ');
      for (const part of names) {
        Object.defineProperty(this.prototype, part, {
          get() {
            return this.#parts[part];
          },
          set(value) {
            this.#change(part, String(value));
            if (part === 'search' || part === 'href') this.#params = undefined;
          },
        });
      }
      Object.defineProperty(this.prototype, 'origin', {
        get() {
          return this.#parts.origin;
        },
      });
    }
  }
  globalThis.URL = URL;

  const waiting = new Map();
  let calls = 0;
  const request = (method, path, query, data, options) =>
    new Promise((resolve, reject) => {
      const id = calls++;
      let body = null;
      let contentType = null;
      if (typeof data === 'string') {
        body = data;
      } else if (data instanceof URLSearchParams) {
        body = data.toString();
        contentType = 'application/x-www-form-urlencoded';
      } else if (data !== undefined && data !== null) {
        body = stringify(data);
        contentType = 'application/json';
      }
      const all = [...pairs(query), ...pairs(options?.query)];
      host.call(id, stringify({ method, path: String(path), query: all, headers: pairs(options?.headers), body, contentType }));
      // The error is made here, so that its stack names the line of the script that made the call.
      waiting.set(id, { resolve, reject, error: new Error(), full: Boolean(options?.returnFullResponse) });
    });
  const understood = (reply) => {
    const type = reply.headers['content-type'] ?? '';
    if (reply.body === '') return null;
    if (type.includes('json')) return parse(reply.body);
    if (!/^\s*[[{]/.test(reply.body)) return reply.body;
    try {
      return parse(reply.body);
    } catch {
      return reply.body;
    }
  };
  const settle = (id, good, text) => {
    const { resolve, reject, error, full } = waiting.get(id);
    waiting.delete(id);
    const reply = parse(text);
    try {
      const data = good || reply.body ? understood(reply) : null;
      if (good) return resolve(full ? { status: reply.status, headers: reply.headers, data } : data);
      error.data = data;
    } catch (cause) {
      if (good) reply.message = `the app's answer cannot be read: ${cause.message}`;
      error.data = reply.body;
    }
    error.name = 'ApiError';
    error.message = reply.message;
    error.status = reply.status ?? null;
    Object.defineProperty(error, 'apiCall', { value: id });
    reject(error);
  };
  const apiClient = Object.freeze({
    get: (path, query, options) => request('GET', path, query, undefined, options),
    post: (path, data, options) => request('POST', path, undefined, data, options),
    put: (path, data, options) => request('PUT', path, undefined, data, options),
    patch: (path, data, options) => request('PATCH', path, undefined, data, options),
    delete: (path, data, options) => request('DELETE', path, undefined, data, options),
  });
  const invoke = async (script, input, withApi) => {
    const value = await script(withApi ? { ...input, apiClient } : input);
    return stringify(value) ?? 'null';
  };
  return { settle, invoke };
});
