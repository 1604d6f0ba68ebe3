/** What the browser keeps, and what becomes of it where that is forbidden. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { read, write } from "../../gateway/static/js/storage.js";

test("where nothing may be kept, nothing is read and writing says so", () => {
  globalThis.localStorage = {
    getItem() {
      throw new Error("forbidden");
    },
    setItem() {
      throw new Error("forbidden");
    },
  };
  try {
    assert.deepEqual([read("a"), write("a", "b"), write("a", null)], [null, false, false]);
  } finally {
    delete globalThis.localStorage;
  }
});

test("a text is kept in its own area, and null removes it", () => {
  const areas = ["localStorage", "sessionStorage"];
  for (const area of areas) {
    const kept = new Map();
    globalThis[area] = {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, text) => kept.set(key, text),
      removeItem: (key) => kept.delete(key),
    };
  }
  try {
    assert.equal(write("a", "here"), true);
    assert.equal(write("a", "there", "sessionStorage"), true);
    assert.deepEqual([read("a"), read("a", "sessionStorage")], ["here", "there"]);
    write("a", null);
    assert.deepEqual([read("a"), read("a", "sessionStorage")], [null, "there"]);
  } finally {
    for (const area of areas) delete globalThis[area];
  }
});
