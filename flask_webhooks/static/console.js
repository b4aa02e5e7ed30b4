// What HTML and htmx cannot do: local times, copying, the picker, charts, the live tail.
// Every page works without this script.
(function () {
  "use strict";
  const root = document.documentElement;
  root.classList.add("wh-js");
  const wh = document.querySelector(".wh");
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));

  // ---- times: local, with UTC on hover -------------------------------------------------------------------
  // The visitor's variant of the page's language: British English has 24 hours.
  const variety = navigator.languages.find((each) => each.split("-")[0] === root.lang) || root.lang || undefined;
  const full = new Intl.DateTimeFormat(variety, { dateStyle: "medium", timeStyle: "medium" });
  function localise(inside) {
    all("time[data-local]", inside).forEach((time) => { time.textContent = full.format(new Date(time.dateTime)); });
    all("time[data-hover]", inside).forEach((time) => {
      if (!time.dataset.utc) time.dataset.utc = time.title;
      time.title = full.format(new Date(time.dateTime)) + " · " + time.dataset.utc;
    });
    all("button[data-copy]", inside).forEach((button) => { button.hidden = false; });
    all("[data-needs-js]", inside).forEach((element) => { element.hidden = false; });
    countDown(inside);
  }
  function countDown(inside) {
    all("time[data-countdown]", inside).forEach((time) => {
      const left = Math.max(0, Math.round((new Date(time.dateTime) - Date.now()) / 1000));
      const pad = (number) => String(number).padStart(2, "0");
      const days = Math.floor(left / 86400);
      time.textContent = (days ? days + " d " : "") + pad(Math.floor(left / 3600) % 24) + ":" + pad(Math.floor(left / 60) % 60) + ":" + pad(left % 60);
    });
  }
  setInterval(countDown, 1000);
  // Update "3 min ago" while the page is open, by the server's clock.
  const skew = Date.now() - new Date(wh.dataset.at);
  function span(seconds) {
    const step = seconds < 59.5 ? 0 : seconds < 3570 ? 1 : seconds < 171000 ? 2 : 3;
    return wh.dataset.units.split("|")[step].replace("%s", Math.round(seconds / [1, 60, 3600, 86400][step]));
  }
  function age() {
    all("time[data-hover]").forEach((time) => {
      const away = (Date.now() - skew - new Date(time.dateTime)) / 1000;
      time.textContent = Math.abs(away) < 5 ? wh.dataset.now : (away > 0 ? wh.dataset.ago : wh.dataset.in).replace("%s", span(Math.abs(away)));
    });
  }
  setInterval(age, 10000);

  // ---- copying ------------------------------------------------------------------------------------------
  const toast = document.getElementById("wh-toast");
  let hide;
  function say(text) {
    if (!toast) return;
    toast.textContent = text;
    toast.classList.add("is-shown");
    clearTimeout(hide);
    hide = setTimeout(() => toast.classList.remove("is-shown"), 2200);
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (refused) {
      const area = document.createElement("textarea");
      area.value = text;
      wh.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(wh.dataset.copied);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(document.querySelector(button.dataset.copy).textContent);
    if (button && button.dataset.does) tick(button.dataset.does);
  });
  // Tick a step that is done.
  function tick(name) {
    all("[data-step=" + name + "]").forEach((step) => {
      step.classList.add("is-done");
      step.querySelector("[data-done]").hidden = false;
    });
  }
  // Remember the language of the receiver that the visitor chose last.
  const languages = all("input[name=wh-language]");
  languages.forEach((choice) => choice.addEventListener("change", () => {
    try { localStorage.setItem("wh-language", choice.id); } catch (full) { /* the storage is full or forbidden: it is not remembered */ }
  }));
  try {
    const last = languages.find((choice) => choice.id === localStorage.getItem("wh-language"));
    if (last) last.checked = true;
  } catch (closed) { /* the storage is forbidden */ }
  // A text that is too long for the page is fetched; without this script it is a link.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-copy-from]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.statusText);
      await copy(await answer.text());
    } catch (failed) {
      location.assign(link.href);
    }
  });

  // ---- the picker ---------------------------------------------------------------------------------------
  function setUpPicker(picker) {
    const channels = all(".wh-channel", picker);
    const search = picker.querySelector("[data-picker-search]");
    const note = picker.querySelector("[data-picker-note]");
    const boxes = (channel) => all("input[name=event]", channel);
    const picked = (channel) => boxes(channel).filter((box) => box.checked);
    const everything = picker.querySelector("[data-picker-everything]");

    function count(channel) {
      const [whole, ...events] = boxes(channel);
      const total = Number(channel.dataset.total);
      const number = whole.checked ? total : events.filter((box) => box.checked).length;
      channel.querySelector(".wh-channel-count").textContent = number + " / " + total;
      channel.classList.toggle("is-picked", number > 0);
      return number;
    }
    function enforce() {
      let total = 0;
      channels.forEach((channel) => { total += count(channel); });
      const exclusive = channels.find((channel) => channel.dataset.exclusive && picked(channel).length);
      const others = channels.filter((channel) => !channel.dataset.exclusive && picked(channel).length);
      const elsewhere = (picker.dataset.others || "").split(" ").filter(Boolean);
      channels.forEach((channel) => {
        let reason = "";
        if (exclusive && channel !== exclusive) reason = channel.dataset.reasonExclusive.replace("%s", exclusive.dataset.title);
        else if (channel.dataset.exclusive && (others.length || everything.checked) && !exclusive) reason = channel.dataset.reasonOthers.replace("%s", others.length ? others.map((each) => each.dataset.title).slice(0, 3).join(", ") : "*");
        else if (channel.dataset.exclusive === "owner" && elsewhere.some((name) => name !== channel.dataset.name)) reason = channel.dataset.reasonElsewhere;
        block(channel, reason);
      });
      everything.disabled = Boolean(exclusive);
      note.hidden = !exclusive;
      if (exclusive) note.querySelector("[data-note]").textContent = note.dataset.text.replace("%s", exclusive.dataset.title);
      picker.querySelector("[data-picker-total]").textContent = total;
    }
    function block(channel, reason) {
      channel.classList.toggle("is-blocked", Boolean(reason));
      const covered = boxes(channel)[0].checked;
      all("input, button", channel).forEach((input) => { input.disabled = Boolean(reason) && !input.checked; });
      all(".wh-choice:not(.is-whole)", channel).forEach((choice) => {
        // An event of a channel that is chosen as a whole cannot be chosen again, unless it has includes of its own.
        const asks = all("input:checked", choice).length > 0;
        choice.classList.toggle("is-covered", covered && !asks);
        if (covered && !asks) choice.querySelector("input").disabled = true;
      });
      const text = channel.querySelector("[data-blocked]");
      text.hidden = !reason;
      text.textContent = reason;
    }
    function filter() {
      const text = search.value.trim().toLowerCase();
      channels.forEach((channel) => {
        channel.hidden = Boolean(text) && !channel.dataset.search.includes(text);
        if (text && !channel.hidden && channel.dataset.search.split(" ").length < 400) channel.open = text.length > 2;
      });
    }
    picker.addEventListener("click", (event) => {
      const button = event.target.closest("[data-pick]");
      if (!button) return;
      const [whole, ...events] = boxes(button.closest(".wh-channel"));
      whole.checked = false;
      events.forEach((box) => { box.checked = button.dataset.pick === "all"; });
      picker.dispatchEvent(new Event("change", { bubbles: true }));
    });
    note.querySelector("button").addEventListener("click", () => {
      channels.filter((channel) => channel.dataset.exclusive).forEach((channel) => boxes(channel).forEach((box) => { box.checked = false; }));
      enforce();
    });
    search.addEventListener("input", filter);
    const example = document.getElementById("wh-preview-event");
    picker.addEventListener("change", (event) => {
      // Preview the event that was chosen last.
      const box = event.target;
      if (box.checked && (box.name === "event" || box.name === "include")) {
        const [pattern] = box.value.split(" ");
        const name = pattern.endsWith(".*") ? (boxes(box.closest(".wh-channel"))[1] || box).value : pattern;
        if (all("option", example).some((option) => option.value === name)) example.value = name;
      }
      enforce();
    });
    picker.querySelector("[data-picker-clear]").addEventListener("click", () => {
      all("input[name=event], input[name=include]", picker).forEach((box) => { box.checked = false; });
      picker.dispatchEvent(new Event("change", { bubbles: true }));
    });
    enforce();
  }
  all("[data-picker]").forEach(setUpPicker);
  all("[data-add-header]").forEach((button) => button.addEventListener("click", () => {
    const rows = all("[data-header-row]");
    const row = rows[rows.length - 1].cloneNode(true);
    all("input", row).forEach((input) => { input.value = ""; input.required = false; });
    rows[rows.length - 1].after(row);
    row.querySelector("input").focus();
  }));
  all("[data-shows]").forEach((select) => {
    const target = document.querySelector(select.dataset.shows);
    const show = () => { target.hidden = select.value !== select.dataset.when; };
    select.addEventListener("change", show);
    show();
  });

  // ---- charts -------------------------------------------------------------------------------------------
  const colour = (name) => getComputedStyle(wh).getPropertyValue(name).trim();
  function axes() {
    const line = { stroke: colour("--rule"), width: 1 };
    const scale = parseFloat(getComputedStyle(root).fontSize) / 16;
    const font = 11 * scale + "px " + getComputedStyle(wh).fontFamily;
    const shared = { stroke: colour("--quiet"), font, grid: line, ticks: { show: false } };
    return { scale, shared, x: { ...shared, grid: { show: false }, size: 30 * scale, space: 56 * scale, gap: 9 * scale } };
  }
  function tip(labels, unit, format) {
    const box = document.createElement("div");
    box.className = "wh-tip";
    box.hidden = true;
    return {
      hooks: {
        init: (plot) => plot.over.append(box),
        setCursor: (plot) => {
          const at = plot.cursor.idx;
          box.hidden = at == null || plot.cursor.left < 0;
          if (box.hidden) return;
          const lines = labels.map((label, number) => label.text + "  " + format(label.values[at]));
          box.textContent = full.format(new Date(plot.data[0][at] * 1000)) + "\n" + lines.join("\n");
          const left = Math.min(plot.cursor.left + 12, plot.over.clientWidth - box.offsetWidth - 4);
          box.style.transform = "translate(" + Math.max(0, left) + "px, 4px)";
        },
      },
    };
  }
  function draw(element, numbers) {
    // The key of a chart names its series in order, with texts and colours.
    const stacked = element.dataset.plot === "bars";
    const key = all("[data-series]", element.closest(".wh-chart"));
    const names = key.map((item) => item.dataset.series);
    const labels = key.map((item) => ({ text: item.textContent.trim(), values: numbers[item.dataset.series] }));
    const width = numbers.at.length > 1 ? numbers.at[1] - numbers.at[0] : 3600;
    const sums = [];
    names.forEach((name, number) => {
      sums.push(numbers[name].map((value, at) => (stacked && number ? sums[number - 1][at] : 0) + (value || 0)));
    });
    const bars = uPlot.paths.bars({ size: [0.72, 26], radius: 0 });
    const series = key.map((item) => {
      const tone = getComputedStyle(item.previousElementSibling).color;
      return stacked ? { fill: tone, stroke: tone, width: 0, paths: bars, points: { show: false } }
        : { stroke: tone, width: 2, spanGaps: false, points: { show: numbers.at.length < 60, size: 4, fill: tone } };
    });
    const data = stacked ? sums.slice().reverse() : names.map((name) => numbers[name]);
    const top = Math.max(stacked ? 1 : 20, ...(stacked ? sums[sums.length - 1] : names.flatMap((name) => numbers[name].map((value) => value || 0))));
    const { scale, shared, x } = axes();
    const narrow = new Intl.DateTimeFormat(variety, width < 10800 ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { day: "numeric", month: "short" });
    x.values = (u, values) => values.map((value) => narrow.format(new Date(value * 1000)));
    const short = (value) => (value >= 10000 ? Math.round(value / 1000) + "k" : value >= 1000 ? (value / 1000).toFixed(1) + "k" : value);
    const milliseconds = (value) => (value == null ? "–" : value >= 1000 ? (value / 1000).toFixed(value >= 10000 ? 0 : 1) + " s" : Math.round(value) + " ms");
    const plot = new uPlot({
      width: element.clientWidth, height: element.clientHeight,
      legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      padding: [8, 4, 0, 0],
      scales: { x: { range: (u, low, high) => [low - width * 0.6, high + width * 0.6] }, y: { range: [0, top * 1.12] } },
      axes: [x, { ...shared, size: (stacked ? 34 : 52) * scale, gap: 4, space: 26 * scale, values: (u, values) => values.map((value) => (stacked ? (Number.isInteger(value) ? short(value) : "") : milliseconds(value))) }],
      series: [{}, ...(stacked ? series.slice().reverse() : series)],
      plugins: [tip(labels, "", stacked ? (value) => String(value || 0) : milliseconds)],
    }, [numbers.at, ...data], element);
    new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: element.clientHeight })).observe(element);
  }
  async function drawAll(inside) {
    for (const group of all("[data-numbers]", inside)) {
      const answer = await fetch(group.dataset.numbers, { headers: { Accept: "application/json" } });
      if (!answer.ok) continue;
      const numbers = await answer.json();
      all("[data-plot]", group).forEach((element) => {
        all(".uplot", element).forEach((old) => old.remove());
        draw(element, numbers);
      });
      group.dataset.drawn = "true";
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());

  // ---- the live tail ------------------------------------------------------------------------------------
  const button = document.getElementById("wh-live-button");
  if (button) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      button.querySelector("[data-word]").textContent = on ? button.dataset.on : button.dataset.off;
    });
    setInterval(() => {
      const live = document.querySelector("[data-live]"); // filters replace this element
      if (!live) return;
      const reading = live.contains(document.activeElement) && document.activeElement !== document.body;
      if (button.getAttribute("aria-pressed") === "true" && !document.hidden && !reading) htmx.trigger("#wh-live", "tick");
    }, 1500);
  }

  // ---- htmx ---------------------------------------------------------------------------------------------
  document.addEventListener("htmx:afterSwap", (event) => {
    localise(document);
    drawAll(event.target);
    if (event.target.id === "wh-trial" && event.target.querySelector(".is-ok")) tick("test");
    const heard = document.getElementById("wh-heard");
    const fresh = event.target.id === "wh-live" ? all(".wh-new").length : 0;
    if (heard && fresh) heard.textContent = heard.dataset.text.replace("%s", fresh);
  });
  document.addEventListener("htmx:oobAfterSwap", () => localise(document));
  document.addEventListener("htmx:sendError", () => say(wh.dataset.failed));
  document.addEventListener("htmx:beforeSwap", (event) => {
    const status = event.detail.xhr.status;
    // The answer is a whole page, which must not replace a part of this one: show a notice instead.
    if (status >= 400 && status !== 422 && status !== 429) { event.detail.shouldSwap = false; say(wh.dataset.failed); }
  });
  localise(document);
  drawAll(document);
})();
