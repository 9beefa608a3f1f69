/** Times whole pipelines: wall clock here, CPU and memory of the one process under test by time(1). */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const os = require('os')
const path = require('path')

const TIME = '/usr/bin/time'

/** Shell text that runs `command` and leaves its CPU and memory in `file`. */
function timed(command, file) {
  return fs.existsSync(TIME) ? `${TIME} -f '%U %S %M' -o '${file}' ${command}` : command
}

/**
 * @param {(wrap: (command: string) => string) => string} script the pipeline; `wrap` goes around the process to be
 *   measured
 * @returns {Promise<{ seconds: number, cpu?: number, mib?: number }>}
 */
async function measure(script, options) {
  const file = path.join(os.tmpdir(), `manifold-bench-${process.pid}-${Math.random().toString(36).slice(2)}`)
  const from = process.hrtime.bigint()
  const child = spawn(
    'bash',
    ['-c', `set -o pipefail; ${script((command) => timed(command, file))}`],
    Object.assign({ stdio: ['ignore', 'ignore', 'pipe'] }, options),
  )
  let err = ''
  child.stderr.on('data', (text) => {
    err += text
  })
  const code = await new Promise((resolve) => {
    child.once('close', resolve)
  })
  const seconds = Number(process.hrtime.bigint() - from) / 1e9
  if (code !== 0) throw new Error(`the pipeline ended with ${code}: ${err.slice(-2000)}`)
  return Object.assign({ seconds }, usage(file))
}

/** A shell command that runs `command` and fails where it does not write that many lines. */
function counted(command, lines) {
  return `seen=$(${command} | wc -l) && { [ "$seen" -eq ${lines} ] || { echo "$seen lines instead of ${lines}" >&2; false; }; }`
}

function usage(file) {
  let text
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch {
    return {}
  }
  fs.unlinkSync(file)
  const [user, system, kib] = text.trim().split('\n').at(-1).split(' ').map(Number)
  return { cpu: user + system, mib: kib / 1024 }
}

function median(values) {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length === 0
    ? undefined
    : sorted.length % 2 === 1
      ? sorted[half]
      : (sorted[half - 1] + sorted[half]) / 2
}

/**
 * Runs pairs in turn, so that changes of disk and neighbours fall on both.
 * @returns the ratio of their times (peer / ours: above 1 is faster than the peer) and the medians
 */
async function compare(name, pairs, peer, ours, goal) {
  const a = []
  const b = []
  for (let i = 0; i < pairs; i++) {
    a.push(await peer())
    b.push(await ours())
    process.stderr.write(
      `  ${name} ${i + 1}/${pairs}: peer ${a.at(-1).seconds.toFixed(2)} s, manifold ${b.at(-1).seconds.toFixed(2)} s\n`,
    )
  }
  const seconds = (list) => median(list.map((each) => each.seconds))
  return {
    name,
    goal,
    ratio: seconds(a) / seconds(b),
    peer: seconds(a),
    ours: seconds(b),
    cpu: median(b.map((each) => each.cpu)),
    mib: Math.max(...b.map((each) => each.mib ?? 0)),
  }
}

module.exports = { compare, counted, measure, median, timed, usage }
