// The head that can be turned: three.js on one canvas, drawn only when something changes.
import {
  AmbientLight, Box3, Color, DirectionalLight, Group, HemisphereLight, NeutralToneMapping, PerspectiveCamera, Scene,
  Spherical, Vector3, WebGLRenderer,
} from "./three/three.module.min.js";
import { GLTFLoader } from "./three/GLTFLoader.js";
import { OrbitControls } from "./three/OrbitControls.js";

const EASE = 90; // milliseconds in which a weight goes most of its way to a new value
const STEP = Math.PI / 18; // of an arrow key
const AWAY = 0.98; // metres from the head
const LOWEST = 1.05, HIGHEST = 1.95; // polar angles: neither the crown nor the open neck is of interest

export async function openHead(canvas, glb) {
  const renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
  renderer.toneMapping = NeutralToneMapping;
  renderer.toneMappingExposure = 1.05;
  const gltf = await new GLTFLoader().parseAsync(glb, "");
  const parts = [];
  const eyes = new Box3();
  gltf.scene.traverse((each) => {
    if (!each.isMesh) return;
    each.frustumCulled = false;
    if (each.morphTargetDictionary) parts.push(each);
    if (each.material.name === "Eyes") eyes.setFromObject(each);
  });
  const scene = new Scene();
  const turned = new Group();
  turned.add(gltf.scene);
  scene.add(turned);
  scene.add(new HemisphereLight(0xffffff, 0x8d7b6c, 1.25), new AmbientLight(0xffffff, 0.25));
  const light = (colour, strength, x, y, z) => {
    const lamp = new DirectionalLight(new Color(colour), strength);
    lamp.position.set(x, y, z);
    scene.add(lamp);
  };
  light(0xfff3e6, 2.1, -0.7, 0.9, 1.3);
  light(0xdfe9ff, 0.7, 1.2, 0.2, 0.6);
  light(0xffffff, 0.9, 0.6, 0.9, -1.2);

  const centre = eyes.getCenter(new Vector3()).add(new Vector3(0, -0.028, -0.06));
  centre.x = 0;
  const camera = new PerspectiveCamera(22, 1, 0.05, 5);
  const controls = new OrbitControls(camera, canvas);
  Object.assign(controls, {
    enablePan: false, enableZoom: false, rotateSpeed: 0.8, minPolarAngle: LOWEST, maxPolarAngle: HIGHEST,
  });
  controls.target.copy(centre);
  canvas.style.touchAction = "pan-y"; // a finger turns the head sideways, and still scrolls the page

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const names = Object.keys(parts[0].morphTargetDictionary);
  // The eyes turn by their actions' morph targets, so of the rotations only the head's are drawn.
  const skull = gltf.scene.getObjectByName("Head");
  const turns = ["HeadYaw", "HeadPitch", "HeadRoll"];
  const now = new Float32Array(names.length + turns.length);
  const goal = new Float32Array(now.length);
  let asked = 0;
  let last = 0;

  function draw(time) {
    asked = 0;
    const passed = Math.min(time - last, 60);
    last = time;
    const share = still.matches ? 1 : 1 - Math.exp(-passed / EASE);
    let moving = false;
    for (let k = 0; k < now.length; k++) {
      const left = goal[k] - now[k];
      now[k] = Math.abs(left) < 0.002 ? goal[k] : now[k] + left * share;
      moving ||= now[k] !== goal[k];
    }
    for (const part of parts) part.morphTargetInfluences.splice(0, names.length, ...now.subarray(0, names.length));
    const [yaw, pitch, roll] = now.subarray(names.length);
    skull.rotation.set(pitch, -yaw, -roll, "ZXY");
    renderer.render(scene, camera);
    canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1;
    canvas.dataset.moving = moving;
    if (moving) redraw();
  }
  function redraw() {
    if (!asked) {
      asked = requestAnimationFrame(draw);
      if (performance.now() - last > 100) last = performance.now();
    }
  }
  function front() {
    camera.position.copy(centre).add(new Vector3(0.0, 0.01, AWAY));
    controls.update();
    redraw();
  }
  function turn(across, up) {
    const place = new Spherical().setFromVector3(camera.position.clone().sub(centre));
    place.theta += across;
    place.phi = Math.min(HIGHEST, Math.max(LOWEST, place.phi + up));
    camera.position.setFromSpherical(place).add(centre);
    controls.update();
    redraw();
  }
  function fit() {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    // A narrow canvas must show the whole width of the head.
    camera.fov = camera.aspect >= 0.85 ? 22 : 22 * (0.85 / camera.aspect);
    camera.updateProjectionMatrix();
    redraw();
  }

  const keys = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Home") front();
    else if (keys[event.key]) turn(...keys[event.key]);
    else return;
    event.preventDefault();
  });
  controls.addEventListener("change", redraw);
  new ResizeObserver(fit).observe(canvas);
  fit();
  front();

  return {
    front,
    // Coefficients by action name, rotations in radians by Live Link's names; `at once` for a clip, where the next ones
    // come a moment later.
    set(values, atOnce = false, pose = null) {
      names.forEach((name, k) => { goal[k] = values[name] || 0; });
      turns.forEach((name, k) => { goal[names.length + k] = pose?.[name] || 0; });
      if (atOnce) now.set(goal);
      redraw();
    },
    mirror(on) {
      turned.scale.x = on ? -1 : 1;
      redraw();
    },
  };
}
