/**
 * `npm run package`: the program as one file that needs no Node: build/manifold-OS-ARCH. esbuild bundles it into parts,
 * cut where the sources load on first use (`import()`); @yao-pkg/pkg puts the parts into a copy of the pinned Node (a
 * single executable application), without a network. To parse one script with everything would cost 40 ms at each
 * start; a run reads only the parts that it needs.
 *
 *   node scripts/package.js [--output FILE]
 */
'use strict'
const fs = require('fs')
const os = require('os')
const path = require('path')
const { commandParts } = require('./bundle')
const { ready, root } = require('./setup')

const platform = `${process.platform}-${process.arch}`
const version = process.versions.node

/**
 * The first script of the file. It begins as bin/manifold.js does: SIGUSR1 must not end the program. Then it defines
 * the parts as modules that require each other by name.
 */
const MAIN = `
process.on('SIGUSR1', () => {})
const { getAsset } = require('node:sea')
const { compileFunction } = require('node:vm')
const loaded = new Map()
function load(name) {
  const known = loaded.get(name)
  if (known !== undefined) return known.exports
  const module = { exports: {} }
  loaded.set(name, module)
  compileFunction(getAsset(name, 'utf8'), ['exports', 'require', 'module'], { filename: name })(module.exports, (id) => id.startsWith('./') ? load(id.slice(2)) : require(id), module)
  // A CommonJS package in a part of its own has only a default export; Node's import() would show its names as well.
  const { default: only, ...others } = module.exports
  if (only !== null && typeof only === 'object' && Object.keys(others).length === 0) for (const key of Object.keys(only)) if (key !== 'default') Object.defineProperty(module.exports, key, { get: () => only[key], enumerable: true })
  return module.exports
}
load('main.js').main(process.argv.slice(2))
`

/**
 * Puts the pinned Node where pkg keeps those that it downloads: HOME/.pkg-cache/sea, as an archive and unpacked, each
 * with a mark that says it is whole. This Node comes from npm, and the lock file holds its checksum.
 */
function seed(home) {
  const cache = path.join(home, '.pkg-cache', 'sea')
  const name = `node-v${version}-${platform}`
  const node = path.join(cache, name, 'bin', 'node')
  fs.mkdirSync(path.dirname(node), { recursive: true })
  try {
    fs.linkSync(fs.realpathSync(process.execPath), node)
  } catch {
    fs.copyFileSync(process.execPath, node)
  }
  fs.writeFileSync(`${node}.ok`, '')
  for (const mark of [`${name}.tar.gz`, `${name}.tar.gz.ok`]) fs.writeFileSync(path.join(cache, mark), '')
}

async function main() {
  const at = process.argv.indexOf('--output')
  const output = path.resolve(
    at === -1 ? path.join(root, 'build', `manifold-${platform}`) : (process.argv[at + 1] ?? ''),
  )
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-package-'))
  try {
    const { parts, modules } = await commandParts(root, { minify: true })
    const assets = {}
    for (const [name, code] of parts) {
      assets[name] = path.join(work, name)
      fs.writeFileSync(assets[name], code)
    }
    const script = path.join(work, 'sea-main.js')
    fs.writeFileSync(script, MAIN)
    console.log(
      `bundled ${modules} modules into ${parts.size} parts: ${([...parts.values()].join('').length / 2 ** 20).toFixed(1)} MiB`,
    )
    seed(work)
    process.env.HOME = work
    fs.mkdirSync(path.dirname(output), { recursive: true })
    // The file is made beside its place and renamed, so that a running copy is not disturbed.
    const made = `${output}.new`
    fs.rmSync(made, { force: true })
    // Only pkg's function, not its command line, takes the settings of the single executable.
    const { default: sea } = require('@yao-pkg/pkg/lib-es5/sea')
    await sea(script, {
      targets: [
        {
          nodeRange: `node${version}`,
          platform: process.platform === 'darwin' ? 'macos' : process.platform,
          arch: process.arch,
          output: made,
        },
      ],
      signature: true,
      seaConfig: {
        disableExperimentalSEAWarning: true,
        useSnapshot: false,
        useCodeCache: false,
        execArgv: ['--disable-sigusr1', '--max-semi-space-size=2'],
        execArgvExtension: 'none',
        assets,
      },
    })
    fs.chmodSync(made, 0o755)
    fs.renameSync(made, output)
    console.log(`${path.relative(process.cwd(), output)}: ${(fs.statSync(output).size / 2 ** 20).toFixed(1)} MiB`)
  } finally {
    fs.rmSync(work, { recursive: true, force: true })
  }
}

ready(__filename, main, { build: false })
