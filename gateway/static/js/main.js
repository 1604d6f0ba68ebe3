/** Starts the page. */

import { App } from "./app.js";
import { pauseWhileAway, start } from "./live.js";
import { h, render } from "./preact.js";
import { apply } from "./theme.js";

apply();
const root = document.querySelector("#app");
root.replaceChildren();
render(h(App), root);
start();
pauseWhileAway();
