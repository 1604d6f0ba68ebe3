/**
 * Builds the dashboard: `npm ci && npm run build`. Both folders that it writes are ignored by git.
 *
 * - static/vendor/: the third-party parts, from node_modules.
 * - static/built/: the pages, each with one script and one style sheet whose names hold a hash of their content, so that
 *   a browser asks for them once. The gateway serves the sources instead while they are newer (gateway/web/assets.py).
 */

import * as esbuild from "esbuild";
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, extname, join, parse } from "node:path";
import { fileURLToPath } from "node:url";

const inModules = (path) => fileURLToPath(new URL(`../node_modules/${path}`, import.meta.url));
const STATIC = fileURLToPath(new URL("static/", import.meta.url));
const VENDOR = join(STATIC, "vendor");
const BUILT = join(STATIC, "built");

const PARTS = {
  "htm-preact.js": "htm/preact/standalone.module.js",
  "htm.LICENSE.txt": "htm/LICENSE",
  "uplot.js": "uplot/dist/uPlot.esm.js",
  "uplot.css": "uplot/dist/uPlot.min.css",
  "uplot.LICENSE.txt": "uplot/LICENSE",
  "inter.woff2": "@fontsource-variable/inter/files/inter-latin-opsz-normal.woff2",
  "inter.LICENSE.txt": "@fontsource-variable/inter/LICENSE",
  "jetbrains-mono.woff2": "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2",
  "jetbrains-mono.LICENSE.txt": "@fontsource-variable/jetbrains-mono/LICENSE",
  // the page of /schema
  "swagger-ui-bundle.js": "swagger-ui-dist/swagger-ui-bundle.js",
  "swagger-ui.css": "swagger-ui-dist/swagger-ui.css",
  "swagger-ui.LICENSE.txt": "swagger-ui-dist/LICENSE",
};

const PAGES = ["index.html", "map.html", "api.html"];
const COPIED = ["favicon.svg", "vendor/swagger-ui-bundle.js"]; // as they are, under a name with a hash
const ENTRIES = {
  page: "js/main.js",
  map: "js/map/main.js",
  stream: "js/stream/shared.js",
  style: "css/page.css",
  api: "js/api-page.js",
  "api-style": "css/api.css",
};

const ID_LENGTH = 16; // of the digest, in a page: by it a page notices that the gateway serves another build

async function copyParts() {
  await rm(VENDOR, { recursive: true, force: true });
  await mkdir(VENDOR, { recursive: true });
  await Promise.all(Object.entries(PARTS).map(([name, source]) => cp(inModules(source), join(VENDOR, name))));
}

/** Bundles scripts and styles. Returns the new address of each file that a page may name, by its old one. */
async function build() {
  await rm(BUILT, { recursive: true, force: true });
  const { metafile } = await esbuild.build({
    entryPoints: Object.entries(ENTRIES).map(([out, path]) => ({ out, in: join(STATIC, path) })),
    outdir: BUILT,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none", // the licences are in static/vendor/
    loader: { ".woff2": "file" },
    entryNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    metafile: true,
    absWorkingDir: STATIC,
    logLevel: "warning",
  });
  const addresses = new Map();
  for (const [output, { entryPoint, inputs }] of Object.entries(metafile.outputs)) {
    const source = entryPoint ?? Object.keys(inputs)[0];
    addresses.set(`static/${source}`, `static/${output}`);
  }
  for (const source of COPIED) {
    const content = await readFile(join(STATIC, source));
    const { name, ext } = parse(source);
    const copy = `${name}-${sha256(content).slice(0, 8).toUpperCase()}${ext}`;
    await writeFile(join(BUILT, copy), content);
    addresses.set(`static/${source}`, `static/built/${copy}`);
  }
  return addresses;
}

/** Writes the pages with the new addresses and the build's id. Throws for one that names a file which is not built. */
async function writePages(addresses, id) {
  for (const page of PAGES) {
    const html = await readFile(join(STATIC, page), "utf8");
    const built = html.replace(/"(static\/[^"]+)"/g, (_, address) => {
      if (!addresses.has(address)) throw new Error(`${page} names ${address}, which is not built`);
      return `"${addresses.get(address)}"`;
    });
    await writeFile(join(BUILT, page), built.replace('name="page-build" content=""', `name="page-build" content="${id}"`));
  }
}

/** What the pages were built of, as one hash: gateway/web/assets.py computes the same. */
async function sourcesDigest() {
  const names = [];
  for (const entry of await readdir(STATIC, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name).slice(STATIC.length);
    const isSource = [".js", ".css", ".html", ".svg"].includes(extname(path)) && !/^(vendor|built)\//.test(path);
    if (entry.isFile() && isSource && !basename(path).startsWith(".")) names.push(path);
  }
  const all = createHash("sha256");
  for (const name of names.sort()) all.update(`${name} ${sha256(await readFile(join(STATIC, name)))}\n`);
  return all.digest("hex");
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

await copyParts();
const digest = await sourcesDigest();
await writePages(await build(), digest.slice(0, ID_LENGTH));
await writeFile(join(BUILT, "sources.sha256"), `${digest}\n`);
console.log(`gateway/static/vendor: ${Object.keys(PARTS).length} files; gateway/static/built: ${PAGES.length} pages`);
