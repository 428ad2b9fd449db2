/* Replaces the static picture of the molecule by a 3Dmol.js viewer. If anything is missing, the picture stays. */
(() => {
  "use strict";
  const figure = document.getElementById("figure-molecule");
  const data = JSON.parse(document.getElementById("molecule-data").textContent);
  const place = figure.querySelector(".viewer");
  const select = figure.querySelector("select");
  const FRAMES = 30;

  const canvas = document.createElement("canvas");
  if (!(canvas.getContext("webgl2") || canvas.getContext("webgl"))) return;
  figure.classList.add("live");
  let viewer;
  try {
    viewer = $3Dmol.createViewer(place, {backgroundColor: "white", antialias: true});
  } catch (error) {
    figure.classList.remove("live");
    return;
  }

  // scrolling the page over the viewer must not zoom; with Ctrl it does
  const scroll = (event) => event.ctrlKey || event.stopImmediatePropagation();
  for (const name of ["wheel", "mousewheel", "DOMMouseScroll"]) place.addEventListener(name, scroll, {capture: true});

  const STYLE = {stick: {radius: 0.1}, sphere: {scale: 0.23}};
  const atoms = data.symbols.map((elem, k) => {
    const [x, y, z] = data.positions[k];
    return {elem, x, y, z, bonds: data.bonds[k], bondOrder: data.bonds[k].map(() => 1), serial: k};
  });

  const show = (choice) => {
    viewer.stopAnimate();
    viewer.removeAllModels();
    const model = viewer.addModel();
    model.addAtoms(atoms.map((atom) => ({...atom})));
    model.setStyle({}, STYLE);
    if (choice >= 0) {
      // frames are copies of the atoms of the model, which has completed them with colors and indices
      const still = model.selectedAtoms({}), vectors = data.modes[choice].vectors;
      const frames = Array.from({length: FRAMES}, (_, n) => still.map((atom, k) => {
        const [x, y, z] = vectors[k].map((part) => part * Math.sin(2 * Math.PI * n / FRAMES));
        return {...atom, x: atom.x + x, y: atom.y + y, z: atom.z + z};
      }));
      frames.forEach((frame) => model.addFrame(frame));
      viewer.animate({loop: "forward", interval: 50, reps: 0});
    }
    viewer.render();
  };

  for (const {name, direction} of data.axes) {
    const [x, y, z] = direction;
    const thick = name === "z";
    viewer.addCylinder({
      start: {x: -x, y: -y, z: -z}, end: {x, y, z}, radius: thick ? 0.09 : 0.05, color: "#08306b",
      dashed: !thick, dashLength: name === "x" ? 0.35 : 0.12, gapLength: 0.15, fromCap: 1, toCap: 1,
    });
    viewer.addLabel(name, {
      position: {x: 1.06 * x, y: 1.06 * y, z: 1.06 * z}, fontColor: "#08306b", backgroundColor: "white",
      backgroundOpacity: 0.7, fontSize: 16, alignment: "center", inFront: true,
    });
  }
  show(-1);
  viewer.zoomTo();
  viewer.zoom(0.8);
  viewer.render();
  if (select) select.addEventListener("change", () => show(Number(select.value)));
})();
