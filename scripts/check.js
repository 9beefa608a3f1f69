/**
 * `npm run check` finds all that a machine can find for a reviewer: format, types of sources and tests, lint (with
 * sizes of files and functions), the layer table, generated pages. It prints the name and the time of each, and the
 * output of those that fail.
 */
'use strict'
const { spawn } = require('child_process')
const path = require('path')
const { ready, root } = require('./setup')

// For some tools FORCE_COLOR=0 means colours.
const { FORCE_COLOR: _, ...plain } = process.env
const colours = process.stdout.isTTY ? { ...plain, FORCE_COLOR: '1' } : { ...plain, NO_COLOR: '1' }
const modules = (...parts) => path.join(root, 'node_modules', ...parts)
function run(file, args) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [file, ...args], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: colours,
    })
    const output = []
    child.stdout.on('data', (chunk) => output.push(chunk))
    child.stderr.on('data', (chunk) => output.push(chunk))
    child.on('close', (code) => {
      resolve({ ok: code === 0, output: Buffer.concat(output).toString() })
    })
  })
}

const checks = [
  ['format', () => run(modules('@biomejs', 'biome', 'bin', 'biome'), ['format', '.'])],
  ['types', () => run(modules('typescript', 'bin', 'tsc'), ['-p', 'tsconfig.test.json'])],
  ['lint', () => run(modules('eslint', 'bin', 'eslint.js'), ['.', '--max-warnings', '0'])],
  [
    'layers',
    () =>
      run(modules('dependency-cruiser', 'bin', 'dependency-cruiser.mjs'), [
        '--config',
        '.dependency-cruiser.cjs',
        'src',
      ]),
  ],
  ['docs', () => run(path.join(root, 'scripts', 'docs.js'), ['--check'])],
]

ready(
  __filename,
  async () => {
    const wanted = process.argv.slice(2)
    const unknown = wanted.filter((name) => !checks.some(([known]) => known === name))
    if (unknown.length > 0)
      throw new Error(`there is no check ${unknown.join(', ')}: ${checks.map(([name]) => name).join(', ')} are known`)
    const failed = []
    await Promise.all(
      checks
        .filter(([name]) => wanted.length === 0 || wanted.includes(name))
        .map(async ([name, check]) => {
          const started = Date.now()
          const { ok, output } = await check()
          if (!ok) failed.push(name)
          console.log(`${ok ? 'ok    ' : 'FAILED'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
          if (!ok) console.log(output.trimEnd())
        }),
    )
    if (failed.length > 0) console.log(`check failed: ${failed.join(', ')}`)
    process.exitCode = failed.length > 0 ? 1 : 0
  },
  { build: process.argv.length === 2 || process.argv.includes('docs') },
)
