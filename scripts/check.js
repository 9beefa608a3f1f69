/**
 * `npm run check`: everything a reviewer would look for that a machine can find: types of sources and tests, lint, the
 * room table, sizes of files, generated pages. Each with its name, its time and, where it fails, its output.
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const path = require('path')
const { ready, root } = require('./setup')

/** A file beyond the first is said, beyond the second refused: it has become two files. */
const LONG = 350
const TOO_LONG = 400

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

function filesOf(folder) {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => (entry.isDirectory() ? filesOf(path.join(folder, entry.name)) : path.join(folder, entry.name)))
}
function sizes() {
  const long = filesOf(path.join(root, 'src'))
    .map((file) => ({ file: path.relative(root, file), lines: fs.readFileSync(file, 'utf8').split('\n').length - 1 }))
    .filter(({ lines }) => lines > LONG)
  return {
    ok: long.every(({ lines }) => lines <= TOO_LONG),
    output: long
      .map(
        ({ file, lines }) =>
          `${file}: ${lines} lines${lines > TOO_LONG ? `, more than ${TOO_LONG}: make it two files` : `, more than ${LONG}`}\n`,
      )
      .join(''),
  }
}

const checks = [
  ['types', () => run(modules('typescript', 'bin', 'tsc'), ['-p', 'tsconfig.test.json'])],
  ['lint', () => run(modules('eslint', 'bin', 'eslint.js'), ['.', '--max-warnings', '0'])],
  [
    'rooms',
    () =>
      run(modules('dependency-cruiser', 'bin', 'dependency-cruiser.mjs'), [
        '--config',
        '.dependency-cruiser.cjs',
        'src',
      ]),
  ],
  ['sizes', async () => sizes()],
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
          if (!ok || (name === 'sizes' && output !== '')) console.log(output.trimEnd())
        }),
    )
    if (failed.length > 0) console.log(`check failed: ${failed.join(', ')}`)
    process.exitCode = failed.length > 0 ? 1 : 0
  },
  { build: process.argv.length === 2 || process.argv.includes('docs') },
)
