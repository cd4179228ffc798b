// Requests to the server. The token came behind the `#` of the address and stays in this tab.

const KEY = "normloom-token";

export function takeToken() {
  const given = new URLSearchParams(location.hash.replace(/^#/, ""));
  if (!given.has("token")) return {};
  sessionStorage.setItem(KEY, given.get("token"));
  history.replaceState(null, "", "/");
  return { system: given.get("system"), stage: given.get("stage"), view: given.get("view") };
}

async function asked(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}`, ...options.headers };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = text;
  try {
    const body = JSON.parse(text);
    said = body.error ?? body.detail?.map((one) => `${one.loc.slice(1).join(".")}: ${one.msg}`).join("; ") ?? text;
  } catch { /* not JSON: shown as it is */ }
  throw new Error(said || answer.statusText);
}

export async function get(path, given = {}) {
  const query = new URLSearchParams(given).toString();
  return (await asked(query ? `${path}?${query}` : path)).json();
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return (await asked(path, { method: "POST", headers, body: JSON.stringify(body), signal })).json();
}

export async function blob(path, given) {
  return URL.createObjectURL(await (await asked(`${path}?${new URLSearchParams(given)}`)).blob());
}
