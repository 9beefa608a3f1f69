/**
 * Builds dist/ from src/: the library, one file for each source, and the command in parts (dist/command). A build that
 * fails leaves the old one, marked as old by its times.
 */
'use strict'
const { spawnSync } = require('child_process')
const fs = require('fs')
const path = require('path')
const { fill, writeCommand } = require('./bundle')

const root = path.join(__dirname, '..')
const done = spawnSync(
  process.execPath,
  [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json', '--noEmitOnError'],
  { cwd: root, stdio: 'inherit' },
)
if (done.status === 0) {
  fs.chmodSync(path.join(root, 'bin', 'manifold.js'), 0o755)
  removeStale(path.join(root, 'dist'), path.join(root, 'src'))
  build().catch((error) => {
    console.error(error)
    process.exitCode = 1
  })
}
process.exitCode = done.status ?? 1

async function build() {
  await fill(root)
  await writeCommand(root)
}

/** Removes files that were built from sources that are gone; they would remain importable. */
function removeStale(dist, src) {
  for (const entry of fs.readdirSync(dist, { withFileTypes: true })) {
    const built = path.join(dist, entry.name)
    if (built === path.join(root, 'dist', 'command')) continue
    if (entry.isDirectory()) {
      if (fs.existsSync(path.join(src, entry.name))) removeStale(built, path.join(src, entry.name))
      else fs.rmSync(built, { recursive: true })
    } else if (!fs.existsSync(path.join(src, entry.name.replace(/(\.d\.ts|\.js|\.js\.map)$/, '.ts')))) fs.rmSync(built)
  }
}
