(() => {
  // Runs before gradio: it, its words and every request to the server speak the language that was chosen, or else the
  // first of the browser's that the app knows.
  const KNOWN = ['en', 'es', 'zh-CN'], KEY = 'marionette-language';
  const like = tag => KNOWN.find(one => tag === one || tag.split('-')[0] === one.split('-')[0]);
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch { /* where the browser keeps nothing, the choice holds for this page only */ }
  if (!KNOWN.includes(chosen)) chosen = navigator.languages.map(like).find(one => one) ?? 'en';
  window.language = chosen;
  document.documentElement.lang = chosen;
  Object.defineProperty(navigator, 'language', {get: () => chosen, configurable: true});
  const send = window.fetch;
  window.fetch = (what, how = {}) => {
    const headers = new Headers(how.headers ?? what.headers);
    headers.set('Accept-Language', chosen);
    return send(what, {...how, headers});
  };
  document.addEventListener('change', event => {
    if (!event.target.matches('.masthead select')) return;
    try {
      localStorage.setItem(KEY, event.target.value);
    } catch { return; }
    location.reload();
  });
})();
