() => {
  // The app answers all that was asked for on one stream and closes that when nothing is left to answer. What is asked
  // for while the news of the closing is under way gets no answer from gradio, which takes the stream for open still.
  // So where a stream has ended with an answer missing, the page asks for something, and with it for another stream.
  const missing = new Map(), early = new Set(), TRIES = 3; // tries by event; answers that outran the event's number
  const send = window.fetch;
  window.fetch = async (what, how) => {
    const response = await send(what, how);
    const path = new URL(what.url ?? what, location).pathname;
    if (path.endsWith('/queue/join')) response.clone().json().then(asked, () => {});
    if (path.endsWith('/queue/data') && response.ok) listen(response.clone().body.getReader());
    return response;
  };

  function asked({event_id: event}) {
    if (event && !early.delete(event)) missing.set(event, 0);
  }

  function answered({msg, event_id: event}) {
    if (msg === 'process_completed' && !missing.delete(event)) early.add(event);
  }

  async function listen(reader) {
    const decoder = new TextDecoder();
    let text = '';
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const lines = (text + decoder.decode(part.value, {stream: true})).split('\n');
        text = lines.pop();
        lines.filter(line => line.startsWith('data:')).forEach(line => answered(JSON.parse(line.slice(5))));
      }
    } catch { /* gradio gives a stream up where it has read that it ends, and a network where it likes */ }
    setTimeout(askAgain, 500); // gradio may have opened another by then, whose answers are awaited
  }

  function askAgain() {
    if (!missing.size) return;
    document.querySelector('#look-again')?.click();
    for (const [event, tries] of missing) {
      if (tries < TRIES) missing.set(event, tries + 1);
      else missing.delete(event); // the app has forgotten it
    }
  }
}
