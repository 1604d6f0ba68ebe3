/**
 * Copies the dashboard's third-party parts from node_modules into static/vendor/, which git ignores.
 *
 * There is no bundler: the page loads its own ES modules and these files as they are. `npm ci && npm run build`.
 */

import { cp, mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const from = (path) => fileURLToPath(new URL(`../node_modules/${path}`, import.meta.url));
const to = (name) => fileURLToPath(new URL(`static/vendor/${name}`, import.meta.url));

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

await rm(to(""), { recursive: true, force: true });
await mkdir(to(""), { recursive: true });
await Promise.all(Object.entries(PARTS).map(([name, source]) => cp(from(source), to(name))));
console.log(`gateway/static/vendor: ${Object.keys(PARTS).length} files`);
