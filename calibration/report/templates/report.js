"use strict";
document.documentElement.classList.add("live");

const rows = [...document.querySelectorAll("#images tbody tr")];
const [text, verdict, label] = ["text", "verdict", "label"].map((id) => document.getElementById(id));
function filter() {
  const wanted = text.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const hit = (!verdict.value || row.dataset.verdict === verdict.value)
      && (!label.value || row.dataset.label === label.value)
      && (!wanted || row.cells[0].textContent.toLowerCase().includes(wanted)
        || row.cells[1].textContent.toLowerCase().includes(wanted));
    row.hidden = !hit;
    shown += hit;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
}
for (const control of [text, verdict, label]) control.addEventListener("input", filter);
filter();

const large = document.getElementById("large");
for (const pair of document.querySelectorAll(".pair")) {
  pair.addEventListener("click", () => {
    large.querySelector("div").replaceChildren(...[...pair.children].map((child) => child.cloneNode(true)));
    large.querySelector("p").textContent = pair.parentElement.querySelector(".name span:last-child").textContent;
    large.showModal();
  });
}
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
