() => {
  // Ctrl+Enter (on a Mac, Command+Enter) in a prompt presses the button that belongs to it. The cursor stays.
  const buttons = {prompt: 'generate', 'pose-prompt': 'pose-generate', 'edit-prompt': 'edit', 'clip-caption': 'tune'};
  document.addEventListener('keydown', event => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.repeat) return;
    const asked = event.target.closest(Object.keys(buttons).map(id => `#${id}`).join());
    if (!asked) return;
    event.preventDefault();
    event.stopPropagation();
    document.getElementById(buttons[asked.id])?.click();
  }, true);
}
