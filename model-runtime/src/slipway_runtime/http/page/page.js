
"use strict";
const form = document.getElementById("row");
const answer = document.getElementById("answer");

const element = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const given = (control) => {
  const text = control.value;
  if (control.dataset.kind === "boolean") return text === "true";
  if (text.trim() === "") return null;
  if (control.dataset.kind === "text") return text;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
};

const short = (number) => (Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(5))));

const show = (prediction) => {
  for (const [name, value] of Object.entries(prediction)) {
    answer.append(element("p", name, "name"));
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [label, chance] of Object.entries(value)) {
        const line = element("div", undefined, "chance");
        const bar = element("progress");
        bar.max = 1;
        bar.value = chance;
        const percent = chance === null ? "none" : (100 * chance).toFixed(1) + " %";
        line.append(element("span", label), bar, element("output", percent));
        answer.append(line);
      }
    } else {
      const text = typeof value === "number" ? short(value) : value === null ? "none" : String(value);
      answer.append(element("div", text, "value"));
    }
  }
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const row = {};
  for (const control of form.elements) if (control.name) row[control.name] = given(control);
  button.disabled = true;
  answer.replaceChildren();
  try {
    const said = await fetch(form.getAttribute("action"), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ rows: [row] }),
    });
    const document = await said.json();
    if (said.ok) {
      show(document.predictions[0]);
      answer.append(element("p", "request " + document.id, "note"));
    } else {
      answer.append(element("p", document.error, "bad"));
    }
  } catch {
    answer.append(element("p", "The runtime did not answer.", "bad"));
  } finally {
    button.disabled = false;
  }
});

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
