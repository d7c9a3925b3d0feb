() => {
  // The player of ui/player.py. Every one that is drawn hands itself over, before or after this runs. Of its videos the
  // longest leads, the others show the same moment, and the last is heard. Addresses and names are set as properties,
  // never as HTML: they may hold what somebody wrote.
  const SPEEDS = [0.25, 0.5, 0.75, 1, 1.5, 2];
  const AWAY = 0.12;  // seconds that two videos that play may be apart
  const KEYS = {ArrowLeft: 'back', ',': 'back', ArrowRight: 'on', '.': 'on', Home: 'first', End: 'last', k: 'toggle', ' ': 'toggle'};
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
  const players = new Set();
  const filled = (text, ...values) => values.reduce((said, value, index) => said.replace(`%${index + 1}`, value), text);
  const once = (target, kind) => new Promise((done, fail) => {
    target.addEventListener(kind, done, {once: true});
    target.addEventListener('error', fail, {once: true});
  });

  class Player {
    constructor({element, props, watch}) {
      Object.assign(this, {element, props, videos: [], playing: false, repeats: true, speed: 1, sounds: true});
      players.add(this);
      this.root = element.querySelector('.player');
      for (const part of ['films', 'controls', 'moment', 'views']) this[part] = this.root.querySelector(`.${part}`);
      [this.slider, this.strip, this.speeds] = ['input', 'canvas', 'select'].map(kind => this.root.querySelector(kind));
      for (const speed of SPEEDS) this.speeds.add(new Option(`${speed}×`, speed, speed === 1, speed === 1));
      this.listen();
      watch('label', () => this.label());
      watch('value', () => this.take());
      new IntersectionObserver(() => this.apply()).observe(this.root);  // a tab was opened or left
      new ResizeObserver(() => this.drawStrip()).observe(this.strip);
      this.label();
      this.take();
    }

    listen() {
      this.root.addEventListener('click', event => {
        const button = event.target.closest('[data-do]');
        if (button) this.act(button.dataset.do);
        if (event.target.closest('.films') && !event.target.closest('.divider, figcaption') && !this.dragged) {
          this.act('toggle');
          this.slider.focus({preventScroll: true});  // so that the keys go on from there
        }
      });
      this.root.addEventListener('keydown', event => {
        const {target, key} = event;
        if (event.ctrlKey || event.metaKey || event.altKey || target.matches('select, .divider')) return;
        if (!(key in KEYS) || key === ' ' && target.matches('button')) return;
        event.preventDefault();
        this.act(KEYS[key]);
      });
      this.slider.addEventListener('input', () => this.show(this.slider.value - 1));
      this.speeds.addEventListener('change', () => { this.speed = Number(this.speeds.value); this.apply(); });
      this.films.addEventListener('pointerdown', event => this.drag(event));
    }

    label() {
      const [name, play, pause, back, on, repeat, sound, side, wipe, full, speed, position, divider, told, clip, skeletons] =
        String(this.props.label ?? '').split('|');
      this.words = {name, play, pause, divider, told, parts: {clip, skeletons}};
      this.root.setAttribute('aria-label', name);
      for (const [does, words] of Object.entries({back, on, repeat, sound, side, wipe, full})) this.call(does, words);
      this.speeds.setAttribute('aria-label', speed);
      this.slider.setAttribute('aria-label', position);
      this.name();
      this.draw();
    }

    button(does) { return this.root.querySelector(`[data-do=${does}]`); }

    call(does, words) {
      const button = this.button(does);
      if (button.title !== words) {
        button.title = words;
        button.setAttribute('aria-label', words);
      }
    }

    get lead() {
      return this.videos.reduce((one, other) => !one || other.duration > one.duration + 0.05 ? other : one, undefined);
    }

    get heard() { return this.videos.at(-1); }

    get rate() { return this.lead?.film.rate || 8; }

    get frames() {
      const lead = this.lead;
      return Math.max(lead?.film.frames || Math.round((lead?.duration || 0) * this.rate), 1);
    }

    get frame() { return Math.min(Math.floor((this.lead?.currentTime || 0) * this.rate + 0.01), this.frames - 1); }

    // What it shows --------------------------------------------------------------------------------------------------

    take() {
      const films = Array.isArray(this.props.value) ? this.props.value : [];
      const same = films.length === this.videos.length && films.every((film, at) => film.file.url === this.videos[at].film.url);
      if (!same) {
        this.films.replaceChildren(...films.map(() => this.figure()));
        this.videos = [...this.films.querySelectorAll('video')];
        this.videos.forEach((video, at) => {
          video.film = {...films[at], url: films[at].file.url};
          video.src = films[at].file.url;
        });
        this.root.hidden = !films.length;
        this.views.hidden = films.length < 2;
        this.view('side');
      }
      this.videos.forEach((video, at) => Object.assign(video.film, {name: films[at].name, part: films[at].part}));
      this.name();
      if (same) return;
      Object.assign(this, {sounds: true, playing: films.length > 0 && !calm.matches});
      this.apply();
      this.drawStrip();
    }

    /** Says what each video is. */
    name() {
      for (const video of this.videos) {
        const name = video.film.name || this.words.parts[video.film.part] || '';
        video.nextElementSibling.textContent = name;
        video.setAttribute('aria-label', name || this.words.name);
      }
    }

    figure() {
      const figure = document.createElement('figure'), video = document.createElement('video');
      figure.className = 'film';
      Object.assign(video, {playsInline: true, preload: 'auto', disableRemotePlayback: true});
      figure.append(video, document.createElement('figcaption'));
      const leads = act => () => { if (video === this.lead) act(); };
      const frame = () => {
        leads(() => this.draw())();
        if (video.isConnected) video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback?.(frame);
      video.addEventListener('loadedmetadata', () => {
        figure.style.setProperty('--shape', video.videoWidth / video.videoHeight);
        this.apply();
        this.drawStrip();
      });
      video.addEventListener('timeupdate', leads(() => { this.align(); this.draw(); }));
      video.addEventListener('seeked', leads(() => { this.align(); this.draw(); }));
      video.addEventListener('ended', leads(() => { this.playing = false; this.apply(); }));
      video.addEventListener('pause', leads(() => {
        if (this.playing && video.paused && !video.ended && this.isSeen) { this.playing = false; this.apply(); }  // the browser's doing
      }));
      return figure;
    }

    get isSeen() { return this.root.getClientRects().length > 0; }

    /** Has every video do what the player's state says. */
    apply() {
      const {lead, heard} = this, plays = this.playing && this.isSeen;
      for (const video of this.videos) {
        video.loop = video !== lead || this.repeats;
        video.playbackRate = video.defaultPlaybackRate = this.speed;
        video.muted = video !== heard || !this.sounds;
        if (!plays) video.pause();
        else if (video.paused) {
          video.play().catch(error => {
            if (error.name !== 'NotAllowedError' || video.muted) return;
            this.sounds = false;  // nobody has touched the page yet: it plays in silence
            this.apply();
          });
        }
      }
      if (!plays) this.align();
      this.draw();
    }

    /** Has the others show what the one that leads shows. */
    align() {
      const {lead} = this;
      for (const other of this.videos) {
        if (other === lead || !other.duration || !lead.duration) continue;
        const moment = lead.currentTime % other.duration, away = Math.abs(moment - other.currentTime);
        if (away > (lead.paused ? 0.005 : AWAY) && (lead.paused || other.duration - away > AWAY)) other.currentTime = moment;
      }
    }

    draw() {
      if (!this.words) return;
      const {frame, frames} = this, seconds = (frame / this.rate).toFixed(2);
      this.root.classList.toggle('playing', this.playing);
      this.call('toggle', this.playing ? this.words.pause : this.words.play);
      this.button('repeat').setAttribute('aria-pressed', this.repeats);
      const sound = this.button('sound');
      sound.setAttribute('aria-pressed', this.sounds);
      sound.hidden = !isHeard(this.heard);
      for (const view of ['side', 'wipe']) this.button(view).setAttribute('aria-pressed', this.films.dataset.view === view);
      this.slider.max = frames;
      this.slider.value = frame + 1;
      this.slider.setAttribute('aria-valuetext', filled(this.words.told, frame + 1, frames, seconds));
      this.moment.textContent = `${frame + 1} / ${frames}`;
    }

    // What a person does ---------------------------------------------------------------------------------------------

    act(does) {
      switch (does) {
        case 'toggle':
          if (!this.playing && this.lead?.ended) this.lead.currentTime = 0;
          this.playing = !this.playing;
          return this.apply();
        case 'back': return this.step(-1);
        case 'on': return this.step(1);
        case 'first': return this.show(0);
        case 'last': return this.show(this.frames - 1);
        case 'repeat': this.repeats = !this.repeats; return this.apply();
        case 'sound': this.sounds = !this.sounds; return this.apply();
        case 'full':
          if (document.fullscreenElement) document.exitFullscreen();
          else this.root.requestFullscreen?.();
          return;
        default: return this.view(does);
      }
    }

    step(count) { this.show((this.frame + count + this.frames) % this.frames); }

    /** Stops at a frame, counted from 0. */
    show(frame) {
      this.playing = false;
      this.apply();
      const moment = (frame + 0.5) / this.rate;  // its middle: rounding leads to no other
      // Not to where it is: from the last frame, Chromium would begin anew.
      if (this.lead && Math.abs(this.lead.currentTime - moment) > 0.001) this.lead.currentTime = moment;
    }

    // Side by side, or with a divider between each two -----------------------------------------------------------------

    view(view) {
      this.films.dataset.view = view;
      this.films.querySelectorAll('.divider').forEach(one => one.remove());
      const count = view === 'wipe' ? this.videos.length - 1 : 0;
      this.dividers = Array.from({length: count}, (_, at) => this.divider(at, 100 * (at + 1) / (count + 1)));
      this.films.append(...this.dividers);
      this.wipe();
      this.draw();
    }

    divider(at, place) {
      const divider = document.createElement('div');
      divider.className = 'divider';
      divider.place = place;
      for (const [name, value] of Object.entries({role: 'slider', tabindex: 0, 'aria-valuemin': 0, 'aria-valuemax': 100})) {
        divider.setAttribute(name, value);
      }
      divider.setAttribute('aria-label', `${this.words.divider} ${at + 1}`);
      divider.addEventListener('keydown', event => {
        const steps = {ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100};
        if (!(event.key in steps)) return;
        event.preventDefault();
        this.move(divider, divider.place + steps[event.key]);
      });
      return divider;
    }

    move(divider, place) {
      const at = this.dividers.indexOf(divider);
      const low = this.dividers[at - 1]?.place ?? 0, high = this.dividers[at + 1]?.place ?? 100;
      divider.place = Math.min(Math.max(place, low), high);
      this.wipe();
    }

    wipe() {
      const places = [0, ...this.dividers.map(one => one.place), 100];
      this.dividers.forEach(one => {
        one.style.left = `${one.place}%`;
        one.setAttribute('aria-valuenow', Math.round(one.place));
      });
      this.videos.forEach((video, at) => {
        video.style.clipPath = this.dividers.length ? `inset(0 ${100 - places[at + 1]}% 0 ${places[at]}%)` : '';
      });
    }

    drag(event) {
      if (!this.dividers?.length || event.button) return;
      const box = this.films.getBoundingClientRect(), place = one => 100 * (one.clientX - box.left) / box.width;
      const near = this.dividers.reduce((one, other) =>
        Math.abs(other.place - place(event)) < Math.abs(one.place - place(event)) ? other : one);
      if (!event.target.closest('.divider') && Math.abs(near.place - place(event)) > 6) return;  // a press on a video
      event.preventDefault();
      near.focus({preventScroll: true});
      this.dragged = true;
      const follow = moved => this.move(near, place(moved));
      const release = () => {
        window.removeEventListener('pointermove', follow);
        setTimeout(() => { this.dragged = false; });  // after the click that ends it
      };
      window.addEventListener('pointermove', follow);
      window.addEventListener('pointerup', release, {once: true});
      window.addEventListener('pointercancel', release, {once: true});
    }

    // The filmstrip ---------------------------------------------------------------------------------------------------

    async drawStrip() {
      const {lead, strip} = this, width = strip.clientWidth, height = strip.clientHeight;
      if (!lead?.videoWidth || !width) return;
      const wanted = `${lead.src} ${width}`;
      if (this.drawn === wanted) return;
      this.drawn = wanted;
      const probe = document.createElement('video'), scale = window.devicePixelRatio || 1;
      Object.assign(probe, {muted: true, preload: 'auto', src: lead.src});
      try {
        await once(probe, 'loadeddata');
        const shape = probe.videoWidth / probe.videoHeight;
        const count = Math.min(Math.max(Math.ceil(width / (height * shape)), 1), this.frames, 24);
        Object.assign(strip, {width: width * scale, height: height * scale});
        const pen = strip.getContext('2d'), each = strip.width / count;
        for (let at = 0; at < count && this.drawn === wanted; at++) {
          probe.currentTime = (at + 0.5) / count * probe.duration;
          await once(probe, 'seeked');
          const part = Math.min(probe.videoWidth, probe.videoHeight * each / strip.height);
          const tall = part * strip.height / each;
          pen.drawImage(probe, (probe.videoWidth - part) / 2, (probe.videoHeight - tall) / 2, part, tall,
            at * each, 0, each, strip.height);
        }
      } catch { /* a video that can't be read shows no strip */ }
      probe.removeAttribute('src');
      probe.load();
    }
  }

  const isHeard = video => Boolean(video && (video.webkitAudioDecodedByteCount || video.mozHasAudio || video.audioTracks?.length));

  window.takePlayers = () => {
    for (const one of players) if (!one.isThere) players.delete(one);
    for (const given of (window.players ??= []).splice(0)) new Player(given);
  };
  window.takePlayers();
}
