() => {
  // The skeletons of the pose tab, frame by frame: a slider goes through them, joints are dragged, key frames carry
  // the frames between them along. What is edited goes to the server as keypoints, like any that are uploaded.
  const JOINTS = ['nose', 'neck', 'right shoulder', 'right elbow', 'right wrist', 'left shoulder', 'left elbow',
    'left wrist', 'right hip', 'right knee', 'right ankle', 'left hip', 'left knee', 'left ankle', 'right eye',
    'left eye', 'right ear', 'left ear'];
  const LIMBS = [[1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13],
    [1, 0], [0, 14], [14, 16], [0, 15], [15, 17]];
  const SVG = 'http://www.w3.org/2000/svg';
  const known = new WeakMap();
  const figureOf = node => node.closest?.('.pose-preview:has(.timeline)');
  const filled = (words, ...values) => words.replace(/%(\d)/g, (_, place) => values[place - 1]);
  const part = (figure, name) => figure.querySelector(`[data-part="${name}"]`);

  function stateOf(figure) {
    if (!known.has(figure)) {
      const data = atob(figure.querySelector('a[download="keypoints.json"]').href.split(',')[1]);
      known.set(figure, {frames: JSON.parse(data), keys: new Map(), at: 0});
    }
    return known.get(figure);
  }

  // How far a joint is moved in a frame: at key frames as it was dragged, in a straight line between them, and not at
  // all at the clip's ends unless these are key frames.
  function moved(state, frame, person, joint) {
    const last = state.frames.length - 1;
    const at = key => state.keys.get(key)?.[`${person} ${joint}`] ?? [0, 0];
    if (state.keys.has(frame)) return at(frame);
    const marks = [...new Set([0, last, ...state.keys.keys()])];
    const before = Math.max(...marks.filter(mark => mark <= frame));
    const after = Math.min(...marks.filter(mark => mark >= frame));
    const share = after > before ? (frame - before) / (after - before) : 0;
    return [0, 1].map(axis => (1 - share) * at(before)[axis] + share * at(after)[axis]);
  }

  function pointsOf(state, frame, person) {
    const values = person.pose_keypoints_2d;
    return JOINTS.map((_, joint) => {
      const [x, y] = moved(state, frame, person.person_id[0], joint);
      const sure = values[3 * joint + 2];
      return sure > 0 ? [values[3 * joint] + x, values[3 * joint + 1] + y, sure] : [0, 0, 0];
    });
  }

  function make(parent, name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return parent.appendChild(made);
  }

  function show(figure, frame) {
    const state = stateOf(figure);
    const {canvas_width: width, canvas_height: height, people} = state.frames[frame];
    const words = figure.querySelector('.timeline').dataset.words.split('|');  // ui/pose_html.py
    const [joints, ofPerson, place, confidenceOf, nobody, frameOf] = words.slice(JOINTS.length);
    const held = document.activeElement?.dataset?.joint;
    state.at = frame;
    const stage = figure.querySelector('.pose-screen');
    stage.querySelector('picture').hidden = true;
    const before = stage.querySelector('svg');
    const drawing = make(stage, 'svg', {viewBox: `-0.5 -0.5 ${width} ${height}`, 'data-part': 'drawing', role: 'group',
      'aria-label': joints});
    for (const person of people) {
      const number = person.person_id[0];
      const points = pointsOf(state, frame, person);
      for (const [one, other] of LIMBS) {
        if (!points[one][2] || !points[other][2]) continue;
        const side = JOINTS[other].startsWith('right') ? 'right' : JOINTS[other].startsWith('left') ? 'left' : 'middle';
        const limb = one === 1 || other >= 14 ? 'middle' : side;
        make(drawing, 'line', {x1: points[one][0], y1: points[one][1], x2: points[other][0], y2: points[other][1],
          class: limb, 'stroke-width': 0.015 * height});
      }
      points.forEach(([x, y, sure], joint) => {
        if (!sure) return;
        const name = people.length > 1 ? filled(ofPerson, words[joint], number + 1) : words[joint];
        const handle = make(drawing, 'circle', {cx: x, cy: y, r: 0.017 * height, 'stroke-width': 0.04 * height,
          tabindex: 0, role: 'button', 'data-joint': `${number} ${joint}`,
          'aria-label': filled(place, name, Math.round(x), Math.round(y))});
        make(handle, 'title', {}).textContent = name;
      });
    }
    // What a finger holds must stay in the page: where it is taken out, the browser begins to scroll instead.
    const kept = before?.childElementCount === drawing.childElementCount && held && before.querySelector(`[data-joint="${held}"]`);
    if (kept) {
      [...before.children].forEach((old, number) => {
        for (const {name, value} of drawing.children[number].attributes) old.setAttribute(name, value);
      });
      drawing.remove();
    } else {
      before?.remove();
      drawing.querySelector(`[data-joint="${held}"]`)?.focus({preventScroll: true});
    }
    const slider = part(figure, 'frame');
    slider.value = frame;
    const confidence = slider.dataset.confidence.split(' ')[frame];
    const sure = people.length ? (confidence ? filled(confidenceOf, confidence) : '') : nobody;
    const seconds = (frame / slider.dataset.fps).toFixed(2);
    const told = [filled(frameOf, frame + 1, state.frames.length, seconds), sure].filter(Boolean).join(' · ');
    slider.setAttribute('aria-valuetext', told);
    part(figure, 'where').textContent = told;
    part(figure, 'acts').hidden = false;
    part(figure, 'key').setAttribute('aria-pressed', state.keys.has(frame));
    for (const name of ['undo', 'follow']) part(figure, name).disabled = !state.keys.size;
    figure.querySelectorAll('[data-frame]').forEach(bar => {
      bar.classList.toggle('here', +bar.dataset.frame === frame);
      bar.classList.toggle('key', state.keys.has(+bar.dataset.frame));
    });
  }

  function key(state, frame) {  // marks the frame as a key frame: all is where it is now
    if (state.keys.has(frame)) return;
    const where = {};
    for (const person of state.frames[frame].people) {
      JOINTS.forEach((_, joint) => {
        where[`${person.person_id[0]} ${joint}`] = moved(state, frame, person.person_id[0], joint);
      });
    }
    state.keys.set(frame, where);
  }

  function move(figure, name, x, y) {
    const state = stateOf(figure);
    const [number, joint] = name.split(' ').map(Number);
    const {canvas_width: width, canvas_height: height, people} = state.frames[state.at];
    const values = people.find(person => person.person_id[0] === number)?.pose_keypoints_2d;
    if (!values) return;
    key(state, state.at);
    const inside = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
    state.keys.get(state.at)[name] = inside.map((value, axis) => value - values[3 * joint + axis]);
    show(figure, state.at);
  }

  function edited(state) {
    const short = value => Math.round(100 * value) / 100;
    return JSON.stringify(state.frames.map((frame, number) => ({...frame, people: frame.people.map(person => (
      {...person, pose_keypoints_2d: pointsOf(state, number, person).flat().map(short)}))})));
  }

  document.addEventListener('input', event => {
    if (event.target.dataset?.part === 'frame') show(figureOf(event.target), +event.target.value);
  });
  document.addEventListener('click', event => {
    const figure = figureOf(event.target);
    if (!figure) return;
    const bar = event.target.closest('[data-frame]');
    if (bar) show(figure, +bar.dataset.frame);
    const state = stateOf(figure);
    const act = event.target.closest('button')?.dataset.part;
    if (act === 'key') {
      if (!state.keys.delete(state.at)) key(state, state.at);
      show(figure, state.at);
    } else if (act === 'undo') {
      state.keys.clear();
      show(figure, state.at);
    } else if (act === 'play') {
      figure.querySelector('.pose-screen svg')?.remove();
      figure.querySelector('.pose-screen picture').hidden = false;
      part(figure, 'acts').hidden = true;
      part(figure, 'frame').focus();
    } else if (act === 'follow') {
      const file = new DataTransfer();
      file.items.add(new File([edited(state)], 'edited.json', {type: 'application/json'}));
      const input = document.querySelector('#pose-edited input[type=file]');
      input.files = file.files;
      input.dispatchEvent(new Event('change', {bubbles: true}));
    }
  });
  let held = null;
  document.addEventListener('pointerdown', event => {
    const name = event.target.dataset?.joint;
    if (!name || !figureOf(event.target)) return;
    held = {figure: figureOf(event.target), name};
    event.target.focus({preventScroll: true});
    event.preventDefault();
  });
  document.addEventListener('pointermove', event => {
    if (!held) return;
    const drawing = part(held.figure, 'drawing');
    const matrix = drawing?.getScreenCTM();
    if (!matrix) { held = null; return; }
    const {x, y} = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    move(held.figure, held.name, x, y);
  });
  document.addEventListener('touchmove', event => { if (held) event.preventDefault(); }, {passive: false});  // no scrolling
  for (const ended of ['pointerup', 'pointercancel']) document.addEventListener(ended, () => { held = null; });
  document.addEventListener('keydown', event => {
    const name = event.target.dataset?.joint;
    const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    if (!name || !ways[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [x, y] = ways[event.key].map(step => step * (event.shiftKey ? 10 : 1));
    move(figureOf(event.target), name, +event.target.getAttribute('cx') + x, +event.target.getAttribute('cy') + y);
  });
}
