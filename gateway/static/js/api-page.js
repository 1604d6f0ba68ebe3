/** The page of the REST interface: Swagger UI, in the theme of the dashboard. */

import { theme } from "./theme.js";

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

/** Swagger UI has a dark theme, and asks nobody whether it is wanted. */
function applyTheme() {
  const chosen = theme();
  const isDark = chosen === "dark" || (chosen === "system" && systemIsDark.matches);
  document.documentElement.classList.toggle("dark-mode", isDark);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

/**
 * The parts of Swagger UI in landmarks and with headings of every level: its own layout has neither. One server is
 * described, so there is nothing to choose.
 */
const withLayout = ({ React: { createElement: h } }) => ({
  components: {
    ApiPage({ getComponent, specSelectors }) {
      const part = (name) => h(getComponent(name, true));
      const state = specSelectors.loadingStatus();
      if (state === "failed") return h("p", { role: "alert" }, "The description could not be read. Load the page again.");
      if (state !== "success") return h("p", null, "Reading the description …");
      return h(
        "div",
        { className: "swagger-ui" },
        h(getComponent("SvgAssets")),
        h("div", { className: "wrapper about" }, part("InfoContainer"), part("AuthorizeBtnContainer")),
        part("errors"),
        h("h2", { className: "spoken" }, "Endpoints"),
        h("div", { className: "wrapper" }, part("operations")),
        h("h3", { className: "spoken" }, "Messages"),
        h("div", { className: "wrapper" }, part("Models")),
      );
    },
  },
});

/** Gives names to what Swagger UI leaves without: the fields of parameters, and the tables of responses. */
function nameParts() {
  for (const field of page.querySelectorAll("tr[data-param-name] :is(select, input, textarea):not([aria-label])")) {
    field.setAttribute("aria-label", field.closest("tr").dataset.paramName);
  }
  for (const table of page.querySelectorAll(".responses-table[role=region]:not([aria-label])")) {
    table.setAttribute("aria-label", table.id.replaceAll("_", " "));
  }
}

const page = document.querySelector("#page");
new MutationObserver(nameParts).observe(page, { childList: true, subtree: true });
applyTheme();
systemIsDark.addEventListener("change", applyTheme);
if (window.SwaggerUIBundle) {
  SwaggerUIBundle({
    url: document.querySelector('a[href$="openapi.json"]').href,
    dom_id: "#page",
    validatorUrl: null,
    deepLinking: false, // its links lie within buttons, which assistive programs cannot tell apart
    displayRequestDuration: true,
    layout: "ApiPage",
    plugins: [withLayout],
  });
}
