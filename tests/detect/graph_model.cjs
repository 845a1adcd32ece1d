// Runs a TensorFlow.js graph model with its own runtime, as the oracle of fusion/detect/tfjs.py.
// Usage: node graph_model.cjs MODEL.JSON HEIGHT WIDTH <PICTURES >OUTPUTS
// PICTURES: uint8 RGB, one after another. OUTPUTS: a line of JSON for each.
const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const load = createRequire(path.join(process.cwd(), "none.js"));
const tf = load("@tensorflow/tfjs-core");
const { loadGraphModel } = load("@tensorflow/tfjs-converter");
const { setWasmPaths } = load("@tensorflow/tfjs-backend-wasm");

async function main() {
  const [file, height, width] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
  const json = JSON.parse(fs.readFileSync(file, "utf8"));
  const shards = json.weightsManifest.flatMap((group) => group.paths);
  const data = Buffer.concat(shards.map((name) => fs.readFileSync(path.join(path.dirname(file), name))));
  setWasmPaths(path.join(process.cwd(), "node_modules/@tensorflow/tfjs-backend-wasm/dist/"));
  await tf.setBackend("wasm");
  const model = await loadGraphModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      signature: json.signature,
      weightSpecs: json.weightsManifest.flatMap((group) => group.weights),
      weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength),
    }),
  });
  const pictures = fs.readFileSync(0);
  const size = height * width * 3;
  for (let at = 0; at + size <= pictures.length; at += size) {
    const input = tf.tensor4d(Int32Array.from(pictures.subarray(at, at + size)), [1, height, width, 3], "int32");
    const output = await model.executeAsync(input);
    console.log(JSON.stringify({ shape: output.shape, values: Array.from(await output.data()) }));
  }
}

main();
