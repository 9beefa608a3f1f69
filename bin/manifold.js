#!/bin/sh
':' /*
self=$0
[ "${self%%/*}" != "$self" ] || self=./$self
while [ -L "$self" ]; do
  link=$(readlink -- "$self")
  case $link in
    /*) self=$link ;;
    *) self=${self%/*}/$link ;;
  esac
done
at=${self%/*}
own=$at/../node_modules/.bin/node
near=$at/../../.bin/node
{ command : 3<&0; } 2>/dev/null || exec 0</
{ command : 3>&1; } 2>/dev/null || exec 1</
if [ -r /proc/$$/status ]; then
  while read -r word mask; do
    if [ "$word" = SigIgn: ]; then
      MANIFOLD_SIGIGN=$mask
      export MANIFOLD_SIGIGN
      break
    fi
  done </proc/$$/status
fi
if [ -x "$own" ]; then
  exec "$own" --disable-sigusr1 --max-semi-space-size=2 "$self" "$@"
elif [ -x "$near" ]; then
  exec "$near" --max-semi-space-size=2 "$self" "$@"
elif command -v node >/dev/null 2>&1; then
  exec node "$self" "$@"
fi
echo "manifold: no Node to run with: 'npm ci' in $at/.. brings the right one, or put Node 24 or later into PATH" >&2
exit 2
*/
/**
 * The launcher: shell to the kernel, JavaScript to Node. The shell lines above go over (exec) into the project's own
 * Node, so that no second process is left behind; the rest runs in whatever Node there is and makes sure that it is one
 * that will do. It must parse in old ones.
 *
 * Two things Node takes away before the first line of JavaScript runs, so the shell tells of them: a closed stdin or
 * stdout, where Node puts /dev/null and we put a directory, which can be neither read nor written; and the signals that
 * are ignored, as by nohup, which Node sets back to their defaults.
 *
 * --max-semi-space-size: src/cli/heap.ts says why. --disable-sigusr1: before a handler exists, SIGUSR1 opens the
 * inspector port. Only the pinned Node is certain to know the flag.
 */
'use strict'
const fs = require('fs')
const path = require('path')

const LEAST = 24
const WRAPPED = 'MANIFOLD_WRAPPED_BY'
const IGNORED = 'MANIFOLD_SIGIGN'
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']

function fail(why) {
  try {
    fs.writeSync(2, 'manifold: ' + why + '\n')
  } catch (error) {
    /* nobody can be told */
  }
  process.exit(2)
}

function pinned() {
  try {
    return path.join(
      path.dirname(require.resolve('node-' + process.platform + '-' + process.arch + '/package.json')),
      'bin',
      'node',
    )
  } catch (error) {
    return undefined
  }
}

function run() {
  // With the flag SIGUSR1 would end the program, without it open the inspector.
  process.on('SIGUSR1', function () {})
  keepIgnoring()
  if (process.env[WRAPPED] !== undefined) answerToWrapper()
  const main = path.join(__dirname, '..', 'dist', 'command', 'main.js')
  if (!fs.existsSync(main)) fail("it is not built yet: run 'npm ci && npm run build' in " + path.dirname(__dirname))
  require(main).main(process.argv.slice(2))
}

/**
 * A handler of ours that does nothing stands for what was ignored at the start; whoever sets up others leaves a signal
 * alone that has one.
 */
function keepIgnoring() {
  const mask = parseInt((process.env[IGNORED] || '0').slice(-8), 16)
  delete process.env[IGNORED]
  const numbers = require('os').constants.signals
  SIGNALS.forEach(function (signal) {
    if (((mask >>> (numbers[signal] - 1)) & 1) === 1) process.on(signal, function () {})
  })
}

/** An old Node cannot become another program: it stays as a mere pipe for signals and the exit status. */
function wrap(node) {
  const args = ['--disable-sigusr1', __filename].concat(process.argv.slice(2))
  const env = Object.assign({}, process.env)
  // A Node that can replace itself does.
  if (typeof process.execve === 'function') process.execve(node, [node].concat(args), env)
  env[WRAPPED] = String(process.pid)
  const child = require('child_process').spawn(node, args, {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: env,
  })
  const pass = function (signal) {
    child.kill(signal)
  }
  SIGNALS.forEach(function (signal) {
    process.on(signal, pass)
  })
  child.on('error', function (error) {
    fail(
      'cannot start ' + node + ' (' + error.message + "): 'npm ci' in " + path.dirname(__dirname) + ' brings it anew',
    )
  })
  child.on('exit', function (code, signal) {
    if (signal === null) process.exit(code)
    SIGNALS.forEach(function (name) {
      process.removeListener(name, pass)
    })
    process.kill(process.pid, signal)
  })
}

function answerToWrapper() {
  delete process.env[WRAPPED]
  // Terminals, timeout(1) and systemd signal the whole group: what the wrapper passes on comes a second time then, and
  // a second signal means "at once".
  const emit = process.emit
  const last = {}
  process.emit = function (name) {
    if (SIGNALS.indexOf(name) !== -1) {
      const before = last[name]
      last[name] = Date.now()
      if (before !== undefined && last[name] - before < 200) return true
    }
    return emit.apply(process, arguments)
  }
  // The wrapper was killed outright; that was meant for us.
  process.on('disconnect', function () {
    process.kill(process.pid, 'SIGKILL')
  })
  process.channel.unref()
}

if (parseInt(process.versions.node, 10) >= LEAST) run()
else {
  const node = pinned()
  if (node === undefined || !fs.existsSync(node) || fs.realpathSync(node) === fs.realpathSync(process.execPath)) {
    fail(
      'Node ' +
        LEAST +
        ' or later is needed, this is ' +
        process.version +
        ": 'npm ci' in " +
        path.dirname(__dirname) +
        ' brings the right one',
    )
  }
  wrap(node)
}
